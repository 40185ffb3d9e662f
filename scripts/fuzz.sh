#!/bin/sh
# Fuzzes the parsers and the order of API calls: libFuzzer with the address and undefined-behaviour sanitizers.
# Usage: sh scripts/fuzz.sh [TARGET|all] [SECONDS]   (all, 60 seconds each). Targets: tests/fuzz/fuzz_TARGET.c.
# Installs clang if it is missing; GLM_FUZZ_INSTALL=0 does not, and exits 77 without it. The build lies in build/fuzz
# (GLM_FUZZ_BUILD), inputs that reach something new are kept in its corpus/TARGET, one that fails in crash/.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
target=${1:-all}
seconds=${2:-60}
build=${GLM_FUZZ_BUILD:-build/fuzz}
case $seconds in
*[!0-9]* | '') echo "usage: sh scripts/fuzz.sh [TARGET|all] [SECONDS]" >&2; exit 2 ;;
esac
known=$(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
if [ "$target" = all ]; then
    target=$known
elif ! printf '%s\n' "$known" | grep -qx "$target"; then
    echo "no such target: $target; there are:" $known >&2
    exit 2
fi
if [ "${GLM_FUZZ_INSTALL:-1}" != 0 ]; then
    sh scripts/install_packages.sh clang libc6-dev meson ninja-build pkg-config libzstd-dev python3
fi
has_fuzzer() {
    dir=$(mktemp -d) || return 1
    printf '%s\n' 'int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { return p && n > 99 ? 1 : 0; }' >"$dir/a.c"
    clang -fsanitize=fuzzer,address,undefined "$dir/a.c" -o "$dir/a" 2>/dev/null && found=0 || found=1
    rm -r "$dir"
    return $found
}
if ! command -v clang >/dev/null || ! has_fuzzer; then
    echo "SKIPPED: there is no clang with libFuzzer: install Debian's package clang" >&2
    exit 77
fi
if [ ! -f "$build/build.ninja" ]; then
    echo "== configuring ($build)"
    mkdir -p "$build"
    CC=clang meson setup "$build" -Dfuzz=true -Dtests=false -Dtools=false -Dexamples=false -Db_lundef=false \
        -Db_sanitize=address,undefined -Dbuildtype=debugoptimized -Doptimization=1 >"$build/configure.log" 2>&1 ||
        { cat "$build/configure.log"; exit 1; }
fi
echo "== building"
targets=
for t in $target; do
    targets="$targets tests/fuzz/fuzz_$t"
done
# shellcheck disable=SC2086
ninja -C "$build" $targets >"$build/build.log" 2>&1 || { tail -40 "$build/build.log"; exit 1; }
python3 tests/fuzz/seeds.py "$root" "$build/seeds"

failed=0
for t in $target; do
    corpus=$build/corpus/$t
    mkdir -p "$corpus" "$build/crash"
    echo "== $t"
    if GLM_TEST_MODEL=$root/models/nano "$build/tests/fuzz/fuzz_$t" -max_total_time="$seconds" -timeout=60 \
        -rss_limit_mb=2048 -max_len=70000 -print_final_stats=1 -artifact_prefix="$build/crash/$t-" "$corpus" "$build/seeds/$t" \
        >"$build/$t.log" 2>&1; then
        grep -E 'number_of_executed_units|new_units_added|DONE' "$build/$t.log" | tail -3
    else
        tail -60 "$build/$t.log"
        echo "$t: FAILED; the input is in $build/crash"
        failed=1
    fi
done
exit $failed
