#!/bin/bash
# Installs a build into a folder of its own and uses it as a stranger would: a small program built through pkg-config
# and through CMake's find_package, and the installed command line, each from where they lie and from where they were
# moved to. Usage: run.sh BUILD_FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -B - "$here/../cli" "$work/tiny.gguf" <<'PYTHON'
import sys
sys.path.insert(0, sys.argv[1])
import gguf
gguf.write(sys.argv[2], *gguf.tiny())
PYTHON

cmake --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/prefix" # what is installed may be moved

echo "== the command line"
"$work/prefix/bin/tenon" --version
"$work/prefix/bin/tenon" run -m "$work/tiny.gguf" --ids 1,2,3 -n 2 --json -q >"$work/answer.json"
grep -q '"ids"' "$work/answer.json"

echo "== manual and completions"
for file in share/man/man1/tenon.1 share/bash-completion/completions/tenon share/zsh/site-functions/_tenon \
    share/fish/vendor_completions.d/tenon.fish; do
    grep -q bench "$work/prefix/$file"
done

echo "== pkg-config"
pc=$(find "$work/prefix" -name tenon.pc)
export PKG_CONFIG_PATH=${pc%/*}
libdir=$(pkg-config --variable=libdir tenon)
cc -std=c11 -Wall -Wextra -Werror "$here/use.c" -o "$work/use" $(pkg-config --cflags --libs tenon) \
    "-Wl,-rpath,$libdir"
"$work/use" "$work/tiny.gguf"

echo "== pkg-config, static"
cc -std=c11 "$here/use.c" -o "$work/use-static" $(pkg-config --cflags tenon) -Wl,-Bstatic -ltenon -Wl,-Bdynamic \
    "-L$libdir" $(pkg-config --static --libs tenon)
if ldd "$work/use-static" | grep libtenon; then exit 1; fi
"$work/use-static" "$work/tiny.gguf"

echo "== find_package"
cmake -S "$here" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/cmake" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/cmake/use" "$work/tiny.gguf"

echo "== nothing but tn_ is exported"
if nm -D --defined-only "$libdir/libtenon.so" | awk '{print $3}' | grep -v '^tn_'; then exit 1; fi
