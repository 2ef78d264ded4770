#!/usr/bin/env bash
# The test suite, after the set-up; everything, real vLLM and real processes included. Other arguments go to pytest:
#
#   launch/test.sh                         all: two files at a time, then what must run alone
#   launch/test.sh --fast                  pure logic only: the folders of FAST below, less than 90 s
#   launch/test.sh --coverage              all, then which lines of rlsp_async/ no test ran; --fast goes with it
#   launch/test.sh -m "not vllm" -x        without the tests that start vLLM, until the first failure
#   launch/test.sh tests/replay            one folder
#
# With any argument it is one call of pytest in one process. Alone run the tests marked vllm, gpu and alone: real vLLM, and
# runs that are disturbed by the clock, where a busy machine would change what is disturbed.
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

all() {  # two calls of pytest; both run, the failures of both stand at the end, and one is enough to fail
    local alone="alone or vllm or gpu" out failed=0
    out=$(mktemp -d)
    trap 'rm -rf "$out"' RETURN
    echo "test: two files at a time"
    "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 -m "not ($alone)" 2>&1 |
        tee "$out/two" || failed=1
    echo "test: what must run alone"
    "$python" -m pytest --durations=15 -m "$alone" 2>&1 | tee "$out/alone" || failed=1
    grep -hE '^(FAILED|ERROR) ' "$out/two" "$out/alone" || true
    echo "test: $(tail -n 1 "$out/two") then $(tail -n 1 "$out/alone")"
    return "$failed"
}

if [[ $# -eq 0 ]]; then
    all
elif [[ -z $coverage ]]; then
    exec "$python" -m pytest --durations=15 "${paths[@]}" "${words[@]}"
else
    "$python" -m coverage run -m pytest --durations=15 "${paths[@]}" "${words[@]}"
    exec "$python" -m coverage report
fi
