"""docs/minimal_loop.py runs, learns from its rewards, and leaves a model that transformers loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(400)  # half a minute of computing, on a machine that does other things too


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a shortened run of the default seed prints, and the directory that it wrote."""
    out = tmp_path_factory.mktemp("minimal_loop")
    words = ["--out", str(out), "--sft-steps", "200", "--rl-steps", "20", "--test-prompts", "256"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "docs/minimal_loop.py"), *words]
    done = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, out


def test_reward_rises(loop):
    text, _ = loop
    rewards = [float(row[1]) for row in re.finditer(r"^grpo +\d+ +\S+ +\S+ +(\S+)", text, re.MULTILINE)]
    assert len(rewards) == 20
    assert mean(rewards[-5:]) > mean(rewards[:5]) + 0.02, text


def test_demonstrations_are_learned_and_rewards_add_to_it(loop):
    text, _ = loop
    before, after = (float(number) for number in re.findall(r"held-out pass@1 ([\d.]+) %", text))
    assert 10.0 < before < after, text


def test_saved_model_loads_and_answers(loop):
    from transformers import AutoModelForCausalLM

    from rlsp_async.tokens import load_tokenizer

    _, out = loop
    model = AutoModelForCausalLM.from_pretrained(out / "final")
    tokenizer = load_tokenizer(out / "final")
    ids = tokenizer("1 2 3 + 4 5 6 <think>", return_tensors="pt")["input_ids"]
    made = model.generate(ids, max_new_tokens=96, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert "</think>" in tokenizer.decode(made[0])
