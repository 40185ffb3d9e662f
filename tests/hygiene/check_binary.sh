#!/bin/sh
# What the built libraries show. Usage: check_binary.sh libglm45.so libglm45.a lib/glm45.map
# Exported symbols are the listed ones; the shared library needs only what it may; no forbidden import; no writable data.
set -u
so=$1 archive=$2 map=$3 bad=0
say() { echo "$1"; bad=$((bad + 1)); }

sed -n 's/^ *\(glm_[a-z0-9_]*\);.*/\1/p' "$map" | sort >/tmp/glm_listed.$$
nm -D --defined-only "$so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort >/tmp/glm_exported.$$
cmp -s /tmp/glm_listed.$$ /tmp/glm_exported.$$ || say "exported symbols are not the listed ones"
nm -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' | sort >/tmp/glm_exported.$$
cmp -s /tmp/glm_listed.$$ /tmp/glm_exported.$$ || say "global symbols of the static library are not the listed ones"
rm -f /tmp/glm_listed.$$ /tmp/glm_exported.$$

for lib in $(readelf -d "$so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p'); do
    case $lib in
    libc.so.* | libm.so.* | libpthread.so.* | libzstd.so.* | ld-linux*) ;;
    *) say "needs $lib" ;;
    esac
done
readelf -d "$so" | grep -q 'SONAME.*libglm45\.so\.1\]' || say "SONAME is not libglm45.so.1"

for word in abort exit _exit printf fprintf vfprintf puts perror stdout stderr getenv setenv setlocale signal sigaction \
    system popen execve socket connect longjmp __assert_fail atexit __printf_chk __fprintf_chk; do
    nm -D --undefined-only "$so" | sed 's/.* U //; s/@.*//' | grep -qx "$word" && say "imports $word"
done

# Nothing of ours is writable: only constants, some of which the loader relocates before they become read-only.
objdump -t "$archive" | grep -E '[[:space:]]\.(data|bss|tdata|tbss)([.]|[[:space:]])' | grep -v '\.data\.rel\.ro' |
    awk '$(NF - 1) !~ /^0+$/ { print $NF }' | grep . && say "writable data"
echo "1 passed, $bad failed"
[ "$bad" -eq 0 ]
