#!/bin/bash
# Fetches an implementation of WebGPU (wgpu-native) into third_party/webgpu, where tenon looks for one at run time. It
# comes in the PyPI package "wgpu", through pip; nothing of it is installed and nothing of it is built in.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.32.0
folder=third_party/webgpu
[ "$(cat "$folder/VERSION" 2>/dev/null || true)" = "$version" ] && exit 0

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$tmp" "wgpu==$version"
python3 -m zipfile -e "$tmp"/wgpu-*.whl "$tmp/wheel"
mkdir -p "$folder"
library=$(find "$tmp/wheel" -name 'libwgpu_native-release.so' | head -n 1)
[ -n "$library" ] || { echo "fetch-webgpu: the package holds no library" >&2; exit 69; }
install -m 755 "$library" "$folder/libwgpu_native.so"
find "$tmp/wheel" -path '*dist-info*' -iname 'LICENSE*' -type f -exec install -m 644 {} "$folder/" \;
echo "$version" >"$folder/VERSION"
