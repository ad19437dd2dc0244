#!/bin/bash
# Writes tests/graphs anew from what a build says: update-graphs.sh [path/to/tenon]. Read the difference before you commit it.
set -euo pipefail
cd "$(dirname "$0")/.."

tenon=${1:-build/tenon}
[ -x "$tenon" ] || { echo "update-graphs: no $tenon; build it, or name another" >&2; exit 69; }
scripts/fetch-model.sh
rm -f tests/graphs/*.txt
test=(python3 -B tests/cli/test_graphs.py --tenon "$tenon" --models models)
"${test[@]}" --update Graphs.test_small_models Graphs.test_made_models Graphs.test_real_models
"${test[@]}"
