#!/bin/bash
# Every figure of docs/cpu.md, in one run on a quiet machine:
#   bench/cpu.sh BUILD LLAMA_BENCH MODEL.gguf... >out.txt
# BUILD has tenon and bench/cpu_kernels (cmake -DTENON_TESTS=ON). Of the first model Q4_0, Q8_0 and Q4_K_M are made beside it in
# a temporary folder. THREADS (default 2), ROUNDS (default 12; ten tests judged together need nine), ABLATIONS (rounds of --ablate, default 40).
set -euo pipefail

build=$1 peer=$2
shift 2
threads=${THREADS:-2} rounds=${ROUNDS:-12} ablations=${ABLATIONS:-40}
tenon=$build/tenon
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

models=("$1")
for type in Q4_0 Q8_0 Q4_K_M; do
    "$tenon" quantize "$1" "$folder/requantised.$type.gguf" $type --allow-requantize -q
    models+=("$folder/requantised.$type.gguf")
done
models+=("${@:2}")
list=$(IFS=, && echo "${models[*]}")

echo "# $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $threads threads, $(date -u +%F)"
echo; echo "## Kernels beside the machine"
"$build/bench/cpu_kernels" "$threads"
echo; echo "## Beside the peer"
"$tenon" bench --against "$peer" -m "$list" -t "$threads" -r "$rounds" -q || [ $? = 1 ]
echo; echo "## Beside the peer, behind 4096 tokens: the first model and the last"
"$tenon" bench --against "$peer" -m "$1,${*: -1}" -t "$threads" -r "$rounds" -p 0 -n 64 -d 4096 -q || [ $? = 1 ]
echo; echo "## What fusion saves and gains"
"$(dirname "$0")/rules.py" "$tenon" "$1" decode -t "$threads"
"$(dirname "$0")/rules.py" "$tenon" "$1" prefill -t "$threads"
"$tenon" bench -m "$1" -t "$threads" -p 0 -n 32 -r "$ablations" --ablate -q
"$tenon" bench -m "$1" -t "$threads" -p 512 -n 0 -r "$ablations" --ablate -q
echo; echo "## Loading"
for model in "${models[@]}"; do
    echo "$(basename "$model"), $(stat -c %s "$model") bytes: $("$tenon" bench -v -m "$model" -t "$threads" -p 0 -n 1 -r 1 2>&1 >/dev/null |
        grep 'load time')"
done
