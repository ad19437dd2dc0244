#!/bin/bash
# Installs the Debian packages that building, testing and checking tenon needs, where one is missing.
# `setup.sh webgpu`: and what its WebGPU tests need, a driver in software and pip, by which fetch-webgpu.sh gets an implementation.
# Does nothing, and asks for no rights, where all are there. With SETUP_ASKS_NOTHING=1 it fails where sudo wants a password.
set -euo pipefail

packages=(
    gcc libc6-dev make cmake ninja-build pkg-config # build
    libpcre2-dev libutf8proc-dev libjansson-dev     # library
    libedit-dev                                     # command line
    libcmocka-dev xz-utils python3 clang-format     # tests and checks
)
[ "${1:-}" != webgpu ] || packages+=(libvulkan1 mesa-vulkan-drivers python3-pip)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: this script knows Debian's apt-get only; please install what corresponds to: ${missing[*]}" >&2
    exit 69
fi
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo ${SETUP_ASKS_NOTHING:+-n})
echo "setup: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
