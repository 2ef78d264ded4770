#!/usr/bin/env bash
# Everything that a GPU alone can show, in at most ten minutes: one line a step, a table, and selftest.json.
#
#   bash benchmarks/gpu.sh                              on a machine with one or more NVIDIA cards
#   bash benchmarks/gpu.sh --device cpu                 the same steps on a CPU, tiny; the others say what they need
#   bash benchmarks/gpu.sh --steps vllm,resume --list
#
# Results go to $OUT/gpu, else to the directory that --out names, else to a new one below the present directory.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$root/benchmarks/gpu.py" "$@"
