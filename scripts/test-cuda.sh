#!/usr/bin/env bash
# The CUDA backend's tests, whole and side by side: they compile some thousand small kernels, one after the other in each process.
# Usage: scripts/test-cuda.sh BUILD [JOBS]     BUILD: a folder configured with -DTENON_TESTS=ON and built
# Prints each part's report; exit status 1 where a part failed. `cases=all`: every case of each op and rule, not one.
set -uo pipefail
root=$(dirname "$(dirname "$(realpath "$0")")")
tests=$(cd "${1:?usage: scripts/test-cuda.sh BUILD [JOBS]}/tests" && pwd)
jobs=${2:-$(nproc)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

parts() {
    local i
    for i in $(seq 0 19); do echo test_cuda_verify "$i" 20 ${cases:+all}; done
    for i in $(seq 0 24); do echo test_cuda_models test_models "$i" 25; done
    for i in sequences out_of_memory lost; do echo test_cuda_models "test_$i"; done
    sed -n 's/.*cmocka_unit_test(\(.*\)),.*/test_cuda \1/p' "$root/tests/test_cuda.c"
    echo test_cuda_weights
    echo test_cuda_program
    echo test_cuda_cache
}

run_part() {
    local from=$SECONDS log=$out/$RANDOM.$$
    "$tests/$1" "${@:2}" >"$log" 2>&1
    local status=$?
    case ${2:-} in test_*) grep -q '1 test(s) run' "$log" || status=1 ;; esac # a name that no test has is no test
    echo "== $* : $([ $status = 0 ] && echo passed || echo "FAILED ($status)"), $((SECONDS - from)) s"
    grep -E '^(FAIL|ops:|rules:|sm_)|SKIPPED|ERROR|f32 .*fused|beside' "$log"
    return $status
}
export -f run_part
export tests out
parts | xargs -P "$jobs" -L 1 bash -c 'run_part "$@"' run_part || exit 1
