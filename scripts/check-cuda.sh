#!/bin/bash
# Compiles every CUDA kernel source with representative tables for every architecture we name, so that none can rot where
# there is no GPU. Needs nvcc; without one it says so and does nothing. test_cuda does the same through NVRTC with the
# tables of real plans.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=$(command -v nvcc || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; } || true)
if [ -z "$nvcc" ]; then
    echo "check-cuda: skipped: no nvcc here" >&2
    exit 0
fi
kernels=src/backend/cuda/kernels
archs="80 90 100 120"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ops=$(grep -oE '^OP\([A-Z0-9_]+' src/graph/ops.def | sed 's/OP(//' | awk '{print "#define OP_" $1, NR - 1}')

# traits LOW HIGH SCALE OFF: TN_K_TRAITS
traits() { echo $(($1 | $2 << 8 | $3 << 12 | $4 << 16)); }

# Every layout of layouts.def, as numbers.
layouts=$(grep -oE '^LAYOUT\(.*\)' src/backend/cuda/layouts.def | tr -d '()' | sed 's/LAYOUT//; s/,//g' |
    while read -r type low high scale off; do
        case $scale in NONE) k=0 ;; BF16) k=1 ;; D) k=2 ;; DM) k=3 ;; KM) k=4 ;; K16) k=5 ;; K16M) k=6 ;; *) exit 1 ;; esac
        echo "$type:$(traits "$low" "$high" "$k" "$off")"
    done)

# compile NAME ENTRY DEFINE=VALUE...: queued; all of them run below
queue=()
compile() {
    local name=$1 entry=$2 define
    shift 2
    {
        echo "$ops"
        for define in "$@"; do echo "#define ${define/=/ }"; done
        case $entry in matvec | matmul | experts) echo "#define SHARED_BYTES 232448" ;; esac # those of a launch: test_cuda
        cat $kernels/params.h $kernels/{tables,pieces,types,cache,rowops}.cu "$kernels/$entry.cu"
    } >"$work/$name.cu"
    queue+=("$name")
}

norm="{OP_RMS_NORM,0,512,-1,0,0,0,-1,512,1,0,1e-5},{OP_MUL,1,512,0,-2,0,512,-1,0,1},{OP_QUANTIZE,1,512,512,0,0,0,1}"
every="{OP_L2_NORM,0,512,-1,0,0,0,-1,64,0,0,1e-6},{OP_SOFTMAX,1,512,0,0,0,512,-1},{OP_SOFTCAP,1,512,512,0,0,0,-1,0,0,0,30}"
gated="{OP_SILU,0,0,0,512,-1},{OP_MUL,2,1,0,512,-1},{OP_QUANTIZE,3,0,0,512,4}"
for act in gelu gelu_quick sigmoid softplus silu scale; do
    every+=",{OP_$(tr a-z A-Z <<<$act),1,512,0,0,0,0,-1}"
done
compile peak peak COUNT=0
compile rows-norm rows COUNT=0 N_ROW_OPS=3 "ROW_OPS=$norm"
compile rows-registers rows COUNT=0 N_ROW_OPS=4 IN_REGISTERS=1 \
    "ROW_OPS={OP_EXPERT_SUM,0,512,-1,-2,0,512,-1,8},{OP_RMS_NORM,1,512,512,0,0,0,-1,512,0,0,1e-5},{OP_MUL,1,512,0,-3,0,512,4},{OP_QUANTIZE,1,512,512,0,0,0,5}"
compile rows-every rows COUNT=0 N_ROW_OPS=9 "ROW_OPS=$every"
compile rows-table rows COUNT=0 N_ROW_OPS=1 "ROW_OPS={OP_ROPE_TABLE,0,128,-1,0,0,-1,0,128,4096,1,1e4,0.25,1,1,32,1}"
compile rows-select rows COUNT=1 N_ROW_OPS=1 "ROW_OPS={OP_SELECT_ROWS,0,512,-1,0,0,-1,1}"
compile rows-route rows COUNT=0 N_ROW_OPS=2 \
    "ROW_OPS={OP_SOFTMAX,0,256,-1,0,0,0,-1},{OP_TOP_K,1,8,0,-2,0,-1,2,256,1,3}"
compile rows-sum rows COUNT=0 N_ROW_OPS=1 "ROW_OPS={OP_EXPERT_SUM,0,512,-1,-2,0,-1,2,8}"
compile argmax argmax COUNT=1 COLS=32000 EACH=4096 SHARES=8 INPUT=0 OUTPUT=1
compile best best COUNT=1 COLS=151936 EACH=4096 SHARES=38 BEST=64 INPUT=0 IDS=1 NUMBERS=2
compile rows-write rows COUNT=0 N_ROW_OPS=1 "ROW_OPS={OP_KV_WRITE,0,256,-1,-2,0,-1,-1}" KV_TYPE=1 KV_HEADS=2 \
    KV_K_DIM=128 KV_V_DIM=128
compile matvec-sum matvec COUNT=0 N_IN=512 X_INT8=1 X_CODE=-1 X_AT=0 X_ROW=640 X_ROWS=1 EXPERTS=0 CHOSEN=-1 TOKENS=1 ROWS=1 LANES=16 MMA=0 \
    MIN_BLOCKS=2 LOADS=12 FIRST_WEIGHT=0 N_PARTS=1 "PRODUCTS={$(traits 8 0 2 0),-1}" "PARTS={512,0,64,0,1,0,2}" N_AFTER_OPS=2 \
    "AFTER_OPS={OP_EXPERT_SUM,-2,-3,8,512,-1},{OP_ADD,0,1,0,512,3}"
compile matvec-shared matvec COUNT=0 N_IN=512 X_INT8=1 X_CODE=-1 X_AT=0 X_ROW=640 X_ROWS=1 EXPERTS=4 CHOSEN=6 TOKENS=1 ROWS=2 LANES=16 MMA=0 \
    MIN_BLOCKS=2 LOADS=12 FIRST_WEIGHT=0 N_PARTS=2 "PRODUCTS={$(traits 8 0 2 0),-1,65536},{$(traits 4 0 4 0),7}" \
    "PARTS={2048,0,64,0,1,0,1,4},{256,64,8,1,1,1,0}" N_AFTER_OPS=1 "AFTER_OPS={OP_SILU,0,0,0,2048,4}"
compile matvec-narrow matvec COUNT=0 N_IN=256 X_INT8=1 X_CODE=-1 X_AT=0 X_ROW=320 X_ROWS=1 EXPERTS=0 CHOSEN=-1 TOKENS=1 ROWS=1 LANES=8 MMA=0 \
    MIN_BLOCKS=2 LOADS=12 FIRST_WEIGHT=0 N_PARTS=1 "PRODUCTS={$(traits 4 0 4 0),7}" "PARTS={512,0,16,0,1,0,0}" N_AFTER_OPS=0
for layout in $layouts; do
    type=${layout%:*} t=${layout#*:}
    compile "rows-embed-$type" rows COUNT=0 N_ROW_OPS=1 "ROW_OPS={OP_EMBED,0,512,-1,0,0,-1,0,$t}"
    for int8 in 0 1; do
        case $type:$int8 in F32:1 | F16:1 | BF16:1) continue ;; esac
        shape="COUNT=0 N_IN=512 X_INT8=$int8 X_CODE=-1 FIRST_WEIGHT=0 N_PARTS=1"
        # shellcheck disable=SC2086
        compile "matvec-$type-$int8" matvec $shape X_AT=0 X_ROW=2304 X_ROWS=1 EXPERTS=0 CHOSEN=-1 TOKENS=4 ROWS=4 \
            LANES=32 MMA=$int8 MIN_BLOCKS=1 LOADS=12 "PRODUCTS={$t,-1},{$t,-1}" "PARTS={512,0,16,0,2,0,3}" N_AFTER_OPS=3 "AFTER_OPS=$gated"
        # shellcheck disable=SC2086
        compile "experts-$type-$int8" matvec $shape X_AT=0 X_ROW=2304 X_ROWS=4 EXPERTS=4 CHOSEN=6 TOKENS=1 ROWS=2 \
            LANES=16 MMA=0 MIN_BLOCKS=2 LOADS=12 "PRODUCTS={$t,-1,65536},{$t,-1,65536}" "PARTS={512,0,16,0,2,0,3,4}" N_AFTER_OPS=3 \
            "AFTER_OPS=$gated"
        # shellcheck disable=SC2086
        [ "$int8" = 0 ] || compile "experts-many-$type" experts $shape X_ROWS=1 EXPERTS=4 CHOSEN=6 MAX_ROWS=512 \
            "PRODUCTS={$t,-1,65536},{$t,-1,65536}" "PARTS={512,0,2,0,2,0,3}" N_AFTER_OPS=3 "AFTER_OPS=$gated"
        # shellcheck disable=SC2086
        for rows in 64 $((64 << int8)); do
            # shellcheck disable=SC2086
            compile "matmul-$type-$int8-$rows" matmul $shape "PRODUCTS={$t,-1},{$t,-1}" "PARTS={512,0,8,0,2,0,3}" \
                N_AFTER_OPS=3 "AFTER_OPS=$gated" TILE_ROWS=$rows TILE_TOKENS=$rows
        done
    done
done
heads="{OP_ROPE,0,1024,-1,-3,0,0,-1,128,128,0},{OP_ROPE,0,256,-2,-3,0,512,-1,128,128,1},{OP_KV_WRITE,1,256,512,-4,0,-1,-1}"
for kv in 0:0 1:0 2:0 0:1; do
    compile "attend-$kv" attend COUNT=0 "ROW_OPS=$heads" N_ROW_OPS=3 GROUP=4 Q_CODE=0 KV_TYPE=${kv%:*} MMA=${kv#*:} \
        KV_HEADS=2 KV_K_DIM=128 KV_V_DIM=128 WINDOW=512 FACTOR=0.088f SOFTCAP=50.0f SPLITS=32 MIN_UNITS=2 WORK_AT=640 CORE_STORE=-1 \
        N_AFTER_OPS=1 "AFTER_OPS={OP_QUANTIZE,0,0,0,1024,5}"
done
# Every tile, with the shared memory of the devices it is for.
while read -r dim wide rows at_once bytes; do
    compile "attend-tile-$dim-$rows" attend_tile COUNT=0 GROUP=3 Q_CODE=-1 KV_TYPE=0 KV_HEADS=2 KV_K_DIM=$dim KV_V_DIM=$dim WINDOW=512 \
        FACTOR=0.088f SOFTCAP=50.0f CORE_STORE=-1 WIDE=$wide ROWS=$rows AT_ONCE=$at_once SHARED_BYTES=$bytes N_AFTER_OPS=1 \
        "AFTER_OPS={OP_QUANTIZE,0,0,0,1024,5}"
done <<<"64 0 128 64 100352
128 0 128 64 100352
256 1 128 32 231424
256 1 64 32 165888
256 1 48 16 100352"

compile scan-conv scan COUNT=0 CORE=OP_CONV1D ONE_TOKEN=0 CHUNK=16 CORE_STORE=-1 COLS=8192 TAPS=4 INPUT=0 WEIGHTS=1 \
    N_AFTER_OPS=1 "AFTER_OPS={OP_SILU,0,0,0,8192,2}"
states="HEADS=32 K_HEADS=16 K_DIM=128 V_DIM=128 V_CODE=-3 G_CODE=-4 B_CODE=-5 STAGE=388"
normed="{OP_L2_NORM,0,2048,-1,0,0,0,-1,128,0,0,1e-6},{OP_L2_NORM,0,2048,-2,0,0,128,-1,128,0,0,1e-6}"
normed+=",{OP_RMS_NORM,1,4096,256,0,0,384,-1,128,0,0,1e-6},{OP_QUANTIZE,1,4096,384,0,0,-1,6}"
# shellcheck disable=SC2086
compile scan-delta scan COUNT=0 CORE=OP_GATED_DELTA_NET ONE_TOKEN=1 CHUNK=1 CORE_STORE=-1 CORE_DST=256 $states Q_CODE=0 \
    K_CODE=128 COLUMNS=128 WORK_AT=512 N_BEFORE=2 N_ROW_OPS=4 "ROW_OPS=$normed"
# shellcheck disable=SC2086
compile scan-delta-many scan COUNT=0 CORE=OP_GATED_DELTA_NET ONE_TOKEN=0 CHUNK=16 CORE_STORE=6 CORE_DST=-1 $states \
    Q_CODE=-1 K_CODE=-2 COLUMNS=32 WORK_AT=0 N_BEFORE=0

# All of them for one architecture, those of the commonest types for the others.
jobs() {
    local arch name
    for arch in $archs; do
        for name in "${queue[@]}"; do
            case $arch:$name in 90:* | *:*-Q4_K* | *:*-Q6_K* | *:*-F16* | *:rows-[a-z]* | *:attend-* | *:scan-* | *:argmax | *:best) echo "$arch $name" ;; esac
        done | if [ "$arch" = 90 ]; then cat; else grep -vE 'rows-embed-[^Q]|rows-embed-Q[^46]|Q4_[01]'; fi
    done
}
jobs |
    xargs -P "$(nproc)" -L 1 sh -c '"$0" -diag-suppress 177,39 -std=c++17 --fmad=false -arch=sm_$2 -cubin \
        -o "$1/$3.$2.cubin" "$1/$3.cu" || { echo "check-cuda: $3 does not compile for sm_$2" >&2; exit 255; }' "$nvcc" "$work"
echo "check-cuda: ${#queue[@]} kernels for sm_90, $(jobs | grep -c "^80 ") of them for sm_80, sm_100 and sm_120 too"
