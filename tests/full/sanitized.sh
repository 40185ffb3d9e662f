#!/bin/sh
# Builds the library and the named tests once more with sanitizers, and runs them. Usage: sanitized.sh SOURCE BUILD
# SANITIZERS TEST... with SANITIZERS as Meson's b_sanitize has them. Exits 77, which Meson shows as skipped, where the
# compiler cannot link a program with them. The second build is kept: another run only builds what has changed.
set -eu
source=$1 build=$2 sanitizers=$3
shift 3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo 'int main(void) { return 0; }' >"$dir/a.c"
if ! "${CC:-cc}" "-fsanitize=$sanitizers" "$dir/a.c" -o "$dir/a" 2>/dev/null || ! "$dir/a"; then
    echo "SKIPPED: ${CC:-cc} cannot build for -fsanitize=$sanitizers here"
    exit 77
fi
if [ ! -f "$build/build.ninja" ]; then
    mkdir -p "$build"
    meson setup "$build" "$source" -Db_sanitize="$sanitizers" -Dexamples=false -Dbuildtype=debugoptimized \
        -Doptimization=1 >"$build/configure.log" 2>&1 || { cat "$build/configure.log"; exit 1; }
fi
programs=
for t in "$@"; do
    programs="$programs tests/test_$t"
done
# shellcheck disable=SC2086
ninja -C "$build" $programs >"$build/build.log" 2>&1 || { tail -40 "$build/build.log"; exit 1; }
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 8 "$@"
