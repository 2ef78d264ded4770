#!/usr/bin/env bash
# One command: makes .venv (quick when nothing has changed), then runs a training job with live progress. At the end it
# prints the table of results and the path of the report.
#
#   launch/local.sh                              the main job, launch/configs/ops_cpu.toml
#   launch/local.sh stages.rlsp.steps=40         the main job with other settings
#   launch/local.sh CONFIG.toml key=value ...    any other job; paths are relative to the working directory
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
fi

config=$root/launch/configs/ops_cpu.toml
if [[ $# -gt 0 && $1 != *=* && $1 != -* ]]; then
    config=$1
    shift
    # A shipped job may be named from any directory: launch/configs/NAME.toml, or only NAME.toml.
    for shipped in "$root/$config" "$root/launch/configs/$config"; do
        if [[ ! -e $config && -e $shipped ]]; then config=$shipped; fi
    done
fi

"$root/launch/setup.sh"
exec "${RLSP_VENV:-$root/.venv}/bin/rlsp" run "$config" "$@"
