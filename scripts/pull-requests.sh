#!/bin/bash
# The tables of the four pull requests, by our own verbs: pull-requests.sh TENON BACKEND MODEL [OPTION ...] > docs/results/NAME.txt
# Options (-t 2, ...) go to every run. See docs/pull-requests.md.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
tenon=$1 backend=$2 model=$3
shift 3
options=(-m "$model" -b "$backend" "$@")
folder=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Rules that put a norm and something else into one launch.
norms=norm,norm_add,row_append,row_chain,norm_matmuls
no_norms=-${norms//,/,-}

say() { printf '\n== %s\n\n' "$*"; }
# run WORDS...: the command and what it prints; of profile, only what stands side by side
run() {
    echo "\$ tenon $*"
    local side=0
    case " $* " in *" --compare "*) side=1 ;; esac
    "$tenon" "$@" -q | awk -v side=$side '/^\| (launch|by kind) / && side { skip = 1 } /^$/ { skip = 0 } !skip' | cat -s
    echo
}

echo "machine: $(uname -m), $(nproc) cores; $("$tenon" doctor 2>/dev/null | grep -E "^${backend%%:*} " || true)"
echo "commit: $(git -C "$folder" describe --always --dirty 2>/dev/null || echo unknown); $("$tenon" --version)"
echo "date: $(date -u +%Y-%m-%d)"

say "norm and weight alone (llama.cpp #21983): each norm with its weight, plain and fused; all else runs node by node"
run profile "${options[@]}" --act f32 --fuse norm --compare -p 512 -n 128 -r 12

say "norm, weight and quantization (llama.cpp #22710): the same with int8 activations"
run profile "${options[@]}" --fuse norm --compare -p 0 -n 32
say "... in the whole, by depth: A without any fused norm, B with all"
for which in a b; do
    fuse=$no_norms
    [ $which = a ] || fuse=all
    "$tenon" bench "${options[@]}" -p 0 -n 32 -d 0,100,512,4096 -r 5 --fuse "$fuse" -o json -q >"$work/$which.json"
done
echo "\$ tenon bench ${options[*]} -p 0 -n 32 -d 0,100,512,4096 -r 5 --fuse $no_norms -o json > a.json; likewise --fuse all > b.json"
run bench --compare "$work/a.json" "$work/b.json" || true

say "norm with q, k, v and norm with gate, up in decode (ONNX Runtime #28280): regions, then the whole"
run profile "${options[@]}" --compare -p 0 -n 128
run bench "${options[@]}" -p 0 -n 128 --fuse all,none -r 5

case ${backend%%:*} in
cpu) scalar=cpu:ref ;;
webgpu) scalar=webgpu:scalar ;;
*) exit 0 ;;
esac
say "one value at a time against vectors (ExecuTorch #20502): the norms of the scalar kernels, then of the widest"
for variant in $scalar "$backend"; do
    run profile -m "$model" -b "$variant" "$@" --act f32 --fuse norm -p 64 -n 16 | grep -E '^\$|^a |^\| (launch|row|---)'
done
