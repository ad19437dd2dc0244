#!/bin/bash
# Lets the downloaded model answer a question. Usage: demo.sh path/to/tenon
set -euo pipefail
model=$(dirname "$0")/../models/SmolLM2-135M-Instruct.Q4_1.gguf
question="What is a mortise and tenon joint, and why does it need no glue?"
printf '> %s\n\n' "$question"
exec "$1" run -m "$model" -p "$question" -n 200 -c 1024
