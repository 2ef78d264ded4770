#!/usr/bin/env bash
# Makes .venv with everything pinned, and installs this checkout into it. Quick when nothing has changed.
#
#   launch/setup.sh            a machine without a GPU: real vLLM for the CPU, torch's CPU build (1.8 GB, about 2 minutes)
#                              a machine with an NVIDIA GPU (nvidia-smi works): the `vllm` extra with CUDA instead
#
#   RLSP_PYTHON=/path/python   which Python makes .venv (3.11 to 3.13; 3.11 is what the pins are tested with)
#   RLSP_DEVICE=cpu|gpu        instead of asking nvidia-smi
#   RLSP_VENV=DIR              another directory than .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${RLSP_VENV:-$root/.venv}
log=$venv/setup.log
stamp=$venv/setup.stamp
lowest_driver=580
torch_cpu_index=https://download.pytorch.org/whl/cpu
# pip's warnings go to the log; the terminal shows only what a person needs.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_WARN_SCRIPT_LOCATION=1 PIP_NO_INPUT=1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 2; }

usable() {  # whether Python $1 starts, is 3.11 to 3.13 and can make a venv (a pyenv shim may exist without its Python)
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    if [[ -n ${RLSP_PYTHON:-} ]]; then
        usable "$RLSP_PYTHON" || fail "RLSP_PYTHON=$RLSP_PYTHON is no Python 3.11 to 3.13 with venv and ensurepip"
        printf '%s\n' "$RLSP_PYTHON"
        return
    fi
    local name
    for name in python3.11 python3.12 python3.13 python3 python; do
        if usable "$name"; then command -v "$name"; return; fi
    done
    fail "no Python 3.11, 3.12 or 3.13 with venv and ensurepip on PATH; install one (Debian and Ubuntu: apt-get install" \
         "python3.11 python3.11-venv; anywhere: uv python install 3.11) or name one in RLSP_PYTHON"
}

find_device() {
    if [[ -n ${RLSP_DEVICE:-} ]]; then
        [[ $RLSP_DEVICE == cpu || $RLSP_DEVICE == gpu ]] || fail "RLSP_DEVICE=$RLSP_DEVICE must be cpu or gpu"
        printf '%s\n' "$RLSP_DEVICE"
    elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        echo gpu
    else
        echo cpu
    fi
}

check_gpu_machine() {  # what CUDA 13 and Triton need, before gigabytes are fetched
    local driver
    if command -v nvidia-smi >/dev/null; then
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
        if [[ ${driver%%.*} =~ ^[0-9]+$ ]] && ((${driver%%.*} < lowest_driver)); then
            fail "NVIDIA driver $driver: vLLM's wheels are made for CUDA 13, which needs driver $lowest_driver or newer;" \
                 "update the driver, or set RLSP_DEVICE=cpu"
        fi
    fi
    command -v "${CC:-gcc}" >/dev/null || fail "no C compiler: Triton compiles a launcher at its first use; install gcc" \
        "(Debian and Ubuntu: apt-get install gcc)"
    "$venv/bin/python" -c 'import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file())' ||
        fail "no Python.h for $("$venv/bin/python" -V): Triton compiles a launcher at its first use; install the headers" \
             "(Debian and Ubuntu: apt-get install python3-dev)"
}

gpu_constraints() {  # the versions of the CPU list, where they mean the same for CUDA
    sed -e 's/+cpu$//' -e '/^apache-tvm-ffi==/d' -e '/^vllm/d' "$root/launch/requirements-cpu.txt"
}

wanted() {  # what the environment depends on; when it equals the stamp, there is nothing to do
    printf '%s %s\n' "$1" "$root"
    (cd "$root" && cksum pyproject.toml launch/setup.sh launch/requirements-cpu.txt launch/requirements-dev.txt)
}

logged() {  # runs "$@" with its output in the log
    printf '\n+ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1
}

step() {  # $1: what is done, as text; the rest: the command
    local what=$1 start=$SECONDS
    shift
    say "$what"
    logged "$@" || failed "$what"
    say "  done in $((SECONDS - start)) s"
}

failed() {
    tail -n 25 "$log" >&2
    fail "$1: failed; the lines above are the end of $log. Run launch/setup.sh again when the cause is removed."
}

install_torch_cpu() {  # from pip's configured sources; from PyTorch's index only if they lack the CPU build. Never CUDA.
    local torch mark start=$SECONDS
    torch=$(grep '^torch==' "$root/launch/requirements-cpu.txt")
    mark=$(wc -l <"$log")
    say "installing $torch"
    if ! logged "$venv/bin/pip" install --no-deps "$torch"; then
        tail -n "+$mark" "$log" | grep -q 'No matching distribution' || failed "installing $torch"
        say "  pip's configured sources do not have it; taking it from $torch_cpu_index"
        logged "$venv/bin/pip" install --no-deps --index-url "$torch_cpu_index" "$torch" || failed "installing $torch"
    fi
    say "  done in $((SECONDS - start)) s"
}

install_cpu() {
    local lists=(-r "$root/launch/requirements-cpu.txt" -r "$root/launch/requirements-dev.txt")
    local number
    number=$(cat "$root"/launch/requirements-{cpu,dev}.txt | grep -c '^[A-Za-z]')
    install_torch_cpu
    # --no-deps: the lists are complete; vLLM's declared dependencies would add triton, torchvision and opencv (1.6 GB).
    step "installing $number packages (about 2 minutes)" "$venv/bin/pip" install --no-deps "${lists[@]}"
    step "installing rlsp_async from $root" "$venv/bin/pip" install --no-deps --no-build-isolation -e "$root"
}

install_gpu() {
    gpu_constraints >"$venv/constraints-gpu.txt"
    step "NVIDIA GPU found: installing rlsp_async[vllm,test] with CUDA (several GB, some minutes)" \
        "$venv/bin/pip" install -c "$venv/constraints-gpu.txt" -e "$root[vllm,test]"
    logged "$venv/bin/python" -c 'import sys, torch
print("torch", torch.__version__, "CUDA", torch.version.cuda, "devices", torch.cuda.device_count())
sys.exit(not torch.cuda.is_available())' || failed "torch sees no CUDA device"
}

check_room() {  # $1: GB that the installation needs
    local free_kb
    free_kb=$(df -Pk "$venv" | awk 'NR == 2 { print $4 }')
    ((free_kb > $1 * 1000000)) || fail "$venv needs $1 GB of disk, $((free_kb / 1000000)) GB are free"
}

main() {
    [[ $(uname -s) == Linux ]] || fail "made for Linux (vLLM has no wheels for $(uname -s)); use Linux, WSL 2 or the Dockerfile"
    local device
    device=$(find_device)
    if [[ -f $stamp && $(<"$stamp") == "$(wanted "$device")" ]]; then return; fi
    mkdir -p "$venv"
    if command -v flock >/dev/null; then
        exec 9>"$venv/setup.lock"
        flock -n 9 || { say "waiting for another setup in $venv"; flock -w 1800 9 || fail "$venv/setup.lock stays taken"; }
        if [[ -f $stamp && $(<"$stamp") == "$(wanted "$device")" ]]; then return; fi
    fi
    rm -f "$stamp"
    : >"$log"
    if ! usable "$venv/bin/python" || [[ ! -x $venv/bin/pip ]]; then
        local python
        python=$(find_python)
        step "making $venv with $("$python" -V)" "$python" -m venv "$venv"
    fi
    if [[ $device == gpu ]]; then check_room 20; check_gpu_machine; install_gpu; else check_room 3; install_cpu; fi
    wanted "$device" >"$stamp"
    say "ready: $venv"
}

main "$@"
