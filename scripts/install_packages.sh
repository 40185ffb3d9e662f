#!/bin/sh
# Installs the Debian packages that building and testing need, if any is missing. Usage: install_packages.sh PACKAGE...
set -eu
missing=
for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "== installing:$missing"
run=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "these packages are missing:$missing. Install them as root (apt-get install$missing), then run this again" >&2
        exit 1
    }
    run=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$run apt-get update -qq
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null
