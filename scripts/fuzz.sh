#!/bin/bash
# Fuzzes: fuzz.sh [seconds for each target, default 60] [target ...]. Fails on any finding; the input that shows it is left in
# build-fuzz/findings. `fuzz.sh --merge` puts what earlier runs found interesting, minimised, into fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

merge=0
[ "${1:-}" != --merge ] || { merge=1; shift; }
seconds=60
[[ ! ${1:-} =~ ^[0-9]+$ ]] || { seconds=$1; shift; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(gguf model tokenizer template json)

if ! command -v clang >/dev/null || ! ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a >/dev/null 2>&1; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang libclang-rt-14-dev
fi

build=${BUILD:-build-fuzz}
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_CLI=OFF -DTENON_FUZZ=ON \
    -DTENON_SANITIZE=address,undefined >/dev/null
programs=(fuzz_seeds)
for target in "${targets[@]}"; do programs+=("fuzz_$target"); done
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${programs[@]}"

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
options=(-timeout=20 -rss_limit_mb=3000 -max_len=16384 -print_final_stats=1 -artifact_prefix="$build/findings/")
for target in "${targets[@]}"; do
    kept=fuzz/corpus/$target found=$build/corpus-$target
    mkdir -p "$kept" "$found"
    folders=("$found" "$kept")
    case $target in gguf | model) folders+=("$build/seeds") ;; esac
    dict=()
    [ ! -f "fuzz/$target.dict" ] || dict=("-dict=fuzz/$target.dict")
    if [ $merge = 1 ]; then
        rm -rf "$build/merged" && mkdir "$build/merged"
        "$build/fuzz/fuzz_$target" -set_cover_merge=1 -max_len=16384 "$build/merged" "${folders[@]}" 2>&1 | tail -n 1
        keep_some "$build/merged" "$kept"
        continue
    fi
    echo "== fuzz_$target: $seconds s"
    log=$build/fuzz_$target.log
    if ! "$build/fuzz/fuzz_$target" "${options[@]}" "${dict[@]}" -max_total_time="$seconds" "${folders[@]}" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz_$target: a finding; see $log and $build/findings" >&2
        exit 1
    fi
    grep -E "number_of_executed_units|new_units_added|peak_rss" "$log"
done
