#!/bin/bash
# Builds the library for aarch64 and runs tests of it, those of the CPU's kernels above all, under user-mode emulation.
#   check-arm64.sh            where a cross compiler and qemu are installed, else says so and does nothing
#   check-arm64.sh --setup    installs these first (Debian; adds the arm64 architecture to apt)
# Libraries come from Debian's arm64 packages, unpacked into the build folder: nothing of them is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-arm64
root=$PWD/$build/root
lib=$root/usr/lib/aarch64-linux-gnu
loader=/usr/aarch64-linux-gnu
tests='test_(quant|cpu_.*|ops|reference)'

if [ "${1:-}" = --setup ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" dpkg --add-architecture arm64
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
fi
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static; do
    if ! command -v $tool >/dev/null; then
        echo "check-arm64: no $tool: skipped (scripts/check-arm64.sh --setup installs it)"
        exit 0
    fi
done

if [ ! -e "$root/done" ]; then
    mkdir -p "$root/packages"
    (
        cd "$root/packages"
        apt-get download -qq lib{pcre2-8-0,utf8proc2,jansson4,cmocka0}:arm64 \
            lib{pcre2,utf8proc,jansson,cmocka}-dev:arm64
        for package in *.deb; do dpkg-deb -x "$package" "$root"; done
    ) 2> >(grep -v unsandboxed >&2 || true)
    touch "$root/done"
fi

export PKG_CONFIG_LIBDIR=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_TESTS=ON -DTENON_WERROR=ON -DTENON_CLI=OFF \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
    -DCMAKE_EXE_LINKER_FLAGS="-Wl,-rpath-link,$lib" \
    -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64-static;-L;$loader;-E;LD_LIBRARY_PATH=$lib" >$build/cmake.log ||
    { cat $build/cmake.log >&2; exit 1; }
mapfile -t targets < <(find tests -maxdepth 1 -name 'test_*.c' -printf '%f\n' | sed 's/\.c$//' | grep -Ex "$tests")
cmake --build $build -j "$(nproc)" --target "${targets[@]}"
ctest --test-dir $build --output-on-failure --no-tests=error -j "$(nproc)" -R "^$tests\$"
