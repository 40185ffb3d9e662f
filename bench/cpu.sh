#!/bin/sh
# Compares libglm45 with llama.cpp and ik_llama.cpp on GGUF files, same threads, tokens and batch sizes, in turns; prints one
# table a file. usage: bench/cpu.sh BUILD_DIR FILE.gguf... [-- options of cpu.py]
#
# Set LLAMA_PYTHON and IK_PYTHON to interpreters that have llama-cpp-python and ik-llama-cpp-python (README.md says how to
# build them natively); a rival without one is left out.
set -eu
here=$(dirname "$0")
if [ $# -lt 2 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
build=$1
shift
rivals=
set_rival() { # name, interpreter
    if [ -n "$2" ]; then
        rivals="$rivals${rivals:+,}$1"
        pythons="${pythons-} --python $1=$2"
    fi
}
set_rival llama "${LLAMA_PYTHON-}"
set_rival ik "${IK_PYTHON-}"
files=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    files="$files $1"
    shift
done
[ $# -eq 0 ] || shift
for f in $files; do
    # names of files and interpreters here have no spaces
    # shellcheck disable=SC2086
    python3 "$here/cpu.py" "$f" --ours "$build/bench/bench-ours" --rivals "$rivals" ${pythons-} "$@"
done
