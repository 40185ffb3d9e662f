#!/bin/sh
# Compares the constraint engine with the package llguidance on MaskBench: schemas that pass, are refused or come out
# wrong; times to compile and to a mask, both engines in turns. MaskBench's file of schemas is not part of this
# repository; give its path. Usage: sh bench/constraints.sh MASKBENCH.jsonl [options]; options are those that
# python3 bench/constraints.py --help lists, but --glm45 and --model, which default to the build in build/ and to
# the tokenizer in tests/data. What the comparison needs is built or installed under build/.
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
-h | --help | '') sed -n '2,6s/^# //p' "$0"; exit $([ -n "${1:-}" ] && echo 0 || echo 2) ;;
esac
given=$1
shift
case $given in
/*) maskbench=$given ;;
*) maskbench=${OLDPWD:-.}/$given ;;
esac
[ -f "$maskbench" ] || { echo "no such file: $given" >&2; exit 2; }

sh scripts/install_packages.sh gcc libc6-dev meson ninja-build pkg-config libzstd-dev check python3 python3-venv
[ -f build/build.ninja ] || meson setup build
ninja -C build tools/glm45 tests/unzstd
work=build/constraints
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
    echo "== a Python environment in $work/venv" >&2
    python3 -m venv "$work/venv"
fi
# One version, so that the figures of two days can be compared.
"$work/venv/bin/python" -c 'import llguidance' 2>/dev/null || "$work/venv/bin/pip" install --quiet llguidance==1.9.1
if [ ! -f "$work/tokenizer.json" ]; then
    build/tests/unzstd <tests/data/tokenizer.json.zst >"$work/tokenizer.json.part"
    mv "$work/tokenizer.json.part" "$work/tokenizer.json"
fi
exec "$work/venv/bin/python" bench/constraints.py "$maskbench" --glm45 build/tools/glm45 \
    --model "$work/tokenizer.json" "$@"
