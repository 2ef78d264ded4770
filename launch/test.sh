#!/usr/bin/env bash
# The test suite, after the set-up; everything, real vLLM and real processes included. Arguments go to pytest:
#
#   launch/test.sh                         all
#   launch/test.sh -m "not vllm" -x        without the tests that start vLLM, until the first failure
#   launch/test.sh tests/replay            one folder
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh"
cd "$root"
exec "${RLSP_VENV:-$root/.venv}/bin/python" -m pytest "$@"
