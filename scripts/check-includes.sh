#!/bin/bash
# Dependencies point one way. Each folder of src/ may include its own headers and those named beside it; tenon.h and the
# system's headers are free to all. Files directly in src/ tie the folders together and may include everything.
set -euo pipefail
cd "$(dirname "$0")/.."

# folder   may include
table="
base
quant      base
gguf       base quant
text       base quant gguf
graph      base quant
fuse       base quant graph
model      base quant graph gguf
plan       base quant graph fuse
backend    base quant graph plan fuse/launch.h
"

fail=0
# complain FILE HEADER
complain() {
    echo "$1: may not include \"$2\"" >&2
    fail=1
}

# FILE HEADER for each #include "..." below a folder, the header's path taken from src/
includes() {
    grep -rHoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"[^"]+"' --include='*.[ch]' --include='*.def' "$@" |
        sed -E 's/^([^:]*):.*"([^"]+)"$/\1 \2/'
}

while read -r folder allowed; do
    [ -n "$folder" ] && [ -d "src/$folder" ] || continue
    while read -r file header; do
        ok=0
        for prefix in tenon.h "$folder" $allowed; do
            case $header in "$prefix" | "$prefix"/*) ok=1 ;; esac
        done
        [ $ok = 1 ] || complain "$file" "$header"
    done < <(includes "src/$folder" || true)
done <<<"$table"

for folder in src/*/; do
    grep -qE "^$(basename "$folder")( |\$)" <<<"$table" || { echo "check-includes: no row for $folder" >&2; fail=1; }
done

# The command line uses the public interface only.
while read -r file header; do
    [ "$header" = tenon.h ] || [ -f "cli/$header" ] || complain "$file" "$header"
done < <(includes cli || true)

exit $fail
