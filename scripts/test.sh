#!/bin/sh
# Installs what is needed, builds, and runs the tests. Usage: sh scripts/test.sh [quick|full]; without a word both suites
# run. Takes no input and can be run again; the build lies in build/.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc g++ libc6-dev meson ninja-build pkg-config libzstd-dev check python3 python3-jsonschema binutils

if [ -f build/build.ninja ]; then
    echo "== configuring again (build/)"
    meson setup --reconfigure build -Dtests=true >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
else
    echo "== configuring (build/)"
    meson setup build
fi
echo "== building"
ninja -C build
echo "== testing"
case ${1:-all} in
quick) meson test -C build --no-rebuild --print-errorlogs --suite quick ;;
full) meson test -C build --no-rebuild --print-errorlogs --suite full ;;
all) meson test -C build --no-rebuild --print-errorlogs --suite quick --suite full ;;
*) echo "usage: sh scripts/test.sh [quick|full]" >&2; exit 2 ;;
esac
