#!/bin/bash
# Fuzzes: fuzz.sh [seconds for each target, default 60] [target ...], as many targets at a time as there are cores (or JOBS).
# Fails on any finding; the input that shows it is left in build-fuzz/findings. `fuzz.sh --merge` puts what earlier runs found
# interesting, minimised, into fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

merge=0
[ "${1:-}" != --merge ] || { merge=1; shift; }
seconds=60
[[ ! ${1:-} =~ ^[0-9]+$ ]] || { seconds=$1; shift; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(gguf model tokenizer template json)

# Installs packages unless the first argument, a command, succeeds.
need() {
    ! eval "$1" >/dev/null 2>&1 || return 0
    shift
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
scripts/setup.sh
need "command -v clang" clang
version=$(clang -dumpversion | cut -d. -f1)
need "ls /usr/lib/llvm-$version/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a" "libclang-rt-$version-dev"

jobs=${JOBS:-$(nproc)}
build=${BUILD:-build-fuzz}
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_CLI=OFF -DTENON_FUZZ=ON \
    -DTENON_SANITIZE=address,undefined -DCMAKE_C_FLAGS=-Wno-pass-failed >/dev/null
programs=(fuzz_seeds)
for target in "${targets[@]}"; do programs+=("fuzz_$target"); done
cmake --build "$build" -j "$jobs" --target "${programs[@]}"

# keep_some FROM TO: as many files (by name, which is a hash) as fit into 150 kB, and no more than 200, so that the repository stays small
keep_some() {
    local total=0 size
    rm -f "$2"/*
    while read -r size file; do
        total=$((total + size))
        [ $total -le 150000 ] || break
        cp "$file" "$2"
    done < <(find "$1" -type f -printf '%s %p\n' | sort -k 2 | head -n 200)
}

# Tiny models, the same whoever writes them, are not kept with the corpus.
mkdir -p "$build/seeds" "$build/findings"
"$build/fuzz/fuzz_seeds" "$build/seeds"

export ASAN_OPTIONS=allocator_may_return_null=1
options=(-timeout=60 -rss_limit_mb=3000 -max_len=16384 -print_final_stats=1 -artifact_prefix="$build/findings/")

# The folders that a target's inputs come from, the first taking new ones.
folders_of() {
    mkdir -p "fuzz/corpus/$1" "$build/corpus-$1"
    echo "$build/corpus-$1" "fuzz/corpus/$1"
    case $1 in gguf | model) echo "$build/seeds" ;; esac
}

merge_one() {
    rm -rf "$build/merged" && mkdir "$build/merged"
    # shellcheck disable=SC2046
    "$build/fuzz/fuzz_$1" -set_cover_merge=1 -max_len=16384 "$build/merged" $(folders_of "$1") 2>&1 | tail -n 1
    keep_some "$build/merged" "fuzz/corpus/$1"
}

fuzz_one() {
    local log=$build/fuzz_$1.log dict=()
    [ ! -f "fuzz/$1.dict" ] || dict=("-dict=fuzz/$1.dict")
    # shellcheck disable=SC2046
    if ! "$build/fuzz/fuzz_$1" "${options[@]}" "${dict[@]}" -max_total_time="$seconds" $(folders_of "$1") >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz_$1: a finding; see $log and $build/findings" >&2
        return 1
    fi
    echo "fuzz_$1, $seconds s:" $(grep -oE "(number_of_executed_units|new_units_added|peak_rss_mb): *[0-9]+" "$log")
}

failed=0 running=0
for target in "${targets[@]}"; do
    if [ $merge = 1 ]; then
        merge_one "$target"
        continue
    fi
    if [ $running -ge "$jobs" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz_one "$target" &
    running=$((running + 1))
done
for (( ; running > 0; running--)); do wait -n || failed=1; done
exit $failed
