#!/bin/sh
# Installs what is needed, builds, and shows a conversation in which the shipped small model thinks, calls a tool and
# answers. On a terminal the chat is then yours. Takes no input otherwise and can be run again; the build lies in build/.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc libc6-dev meson ninja-build pkg-config libzstd-dev binutils python3

if [ ! -f build/build.ninja ]; then
    echo "== configuring (build/)"
    meson setup build -Dtests=false >build.log 2>&1 || { cat build.log; exit 1; }
    rm build.log
fi
echo "== building"
ninja -C build tools/glm45 | tail -n 1

glm45=build/tools/glm45
echo "== a conversation with models/nano, a 9 MB model made for demos and tests"
$glm45 chat models/nano --temperature 0 --show-thinking --tools examples/tools.json \
    --say "What is 47 + 38?" \
    --say "What is the weather in Oslo?" </dev/null
if [ -t 0 ] && [ -t 1 ]; then
    echo "== now you (/help for commands, /quit to leave)"
    exec $glm45 chat models/nano --tools examples/tools.json
fi
