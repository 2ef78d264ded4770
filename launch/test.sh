#!/usr/bin/env bash
# The test suite, after the set-up; everything, real vLLM and real processes included. Other arguments go to pytest:
#
#   launch/test.sh                         all
#   launch/test.sh --fast                  pure logic only: the folders of FAST below, less than 90 s
#   launch/test.sh --coverage              all, then which lines of rlsp_async/ no test ran; --fast goes with it
#   launch/test.sh -m "not vllm" -x        without the tests that start vLLM, until the first failure
#   launch/test.sh tests/replay            one folder
#
# Coverage counts this process alone. The services that the flow tests start as processes of their own are not counted:
# most of them are killed on purpose, and a killed process writes no figures.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The rooms of pure logic: no service is started and no model is trained in their tests.
FAST=(tests/{algos,audit,config,preflight,prompts,replay,report,rewards,tasks,temperatures})

words=() paths=() coverage=
for word in "$@"; do
    case $word in
        --fast) paths=("${FAST[@]}" -m "not vllm and not flow and not gpu") ;;
        --coverage) coverage=yes ;;
        *) words+=("$word") ;;
    esac
done

"$root/launch/setup.sh"
cd "$root"
python=${RLSP_VENV:-$root/.venv}/bin/python
if [[ -z $coverage ]]; then
    exec "$python" -m pytest --durations=15 "${paths[@]}" "${words[@]}"
fi
"$python" -m coverage run -m pytest --durations=15 "${paths[@]}" "${words[@]}"
exec "$python" -m coverage report
