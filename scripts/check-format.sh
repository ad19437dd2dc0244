#!/bin/bash
# Tells where a C file is not in the project's format (.clang-format); with --fix, rewrites it.
# clang-format 14, the version of Debian 12: other versions format a few things differently.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=$(command -v clang-format-14 || command -v clang-format)
if ! "$tool" --version | grep -q 'version 14\.'; then
    echo "check-format: needs clang-format 14, found: $("$tool" --version)" >&2
    exit 69
fi
how=(--dry-run -Werror)
[ "${1:-}" != --fix ] || how=(-i)
git ls-files --cached --others --exclude-standard '*.c' '*.h' | while read -r file; do
    [ ! -f "$file" ] || echo "$file"
done | xargs "$tool" "${how[@]}"
