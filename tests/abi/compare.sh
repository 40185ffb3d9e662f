#!/bin/sh
# Compares the layout that this build has with the recorded one. Usage: compare.sh LAYOUT_PROGRAM RECORDED
# Lines may be added (new fields at a struct's end, new constants); a recorded line may never change or go. Sizes of structs
# may grow.
set -u
now=$(mktemp) bad=0
trap 'rm -f "$now"' EXIT
"$1" >"$now"
recorded=$2
while read -r name a b; do
    line=$(grep -m1 "^$name " "$now") || { echo "gone: $name"; bad=$((bad + 1)); continue; }
    set -- $line
    if [ "$a" = size ]; then
        [ "$3" -ge "$b" ] || { echo "shrunk: $name $b -> $3"; bad=$((bad + 1)); }
    elif [ "$line" != "$(echo $name $a $b)" ]; then
        echo "changed: $name $a $b -> $line"
        bad=$((bad + 1))
    fi
done <"$recorded"
echo "$(wc -l <"$recorded") passed, $bad failed"
[ "$bad" -eq 0 ]
