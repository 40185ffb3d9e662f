#!/bin/sh
# Makes the installed static library: one object in which only the public symbols are global, so that a host's own
# json_parse or tok_open never meets ours. Usage: localize.sh INTERNAL.a VERSION_SCRIPT OUT.a
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ld -r --whole-archive "$1" -o "$dir/glm45.o"
sed -n 's/^ *\(glm_[a-z0-9_]*\);.*/\1/p' "$2" >"$dir/public"
objcopy --keep-global-symbols="$dir/public" "$dir/glm45.o"
rm -f "$3"
ar rcsD "$3" "$dir/glm45.o"
