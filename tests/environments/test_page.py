"""The environment of docs/environments.md, from the page to the verdict: sampler, process, hub's checks, verifier."""

import re
from pathlib import Path

import pytest

from rlsp_async.columns import ints
from rlsp_async.config import RunConfig, convert
from rlsp_async.contents import check_rollouts
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Prompt, SampleJob, Sampling, VerifyItem
from rlsp_async.preflight.inputs import check_modules
from rlsp_async.sampling.sampler import Sampler
from rlsp_async.sampling.scripted import ScriptedEngine
from rlsp_async.verifying.base import load_verifier, verifier_options
from rlsp_async.verifying.fork_server import judge_item

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
LETTERS = {3: "a", 4: "b", 5: "c"}


class Codec:
    """Ids 3, 4, 5 are a, b, c; 9 is whatever an environment says."""

    stop_ids = (2,)

    def encode(self, prompt):
        return [1]

    def encode_observation(self, prompt, text):
        return [9] * len(text.split())

    def decode(self, ids):
        return "".join(LETTERS.get(i, "?") for i in ids)


def says(ids):
    """The wrong word at first; the right one when something was said."""
    return [5, 4, 3, 2] if 9 in ids else [3, 4, 5, 2]


async def test_the_environment_of_the_page_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    path = tmp_path / "backwards.py"
    path.write_text(code)
    table = {
        "name": "x",
        "task": {"environment": {"name": str(path), "max_turns": 4}, "verifier": "claim"},
        "stages": {"rl": {}},
    }
    cfg = convert(table, RunConfig, "x")
    check_modules(cfg)
    prompt = Prompt(prompt_id="p", task="t", text="abc", answer="")
    job = SampleJob(group_id=4, prompt=prompt, sampling=Sampling(rollouts=2, max_new_tokens=30))
    async with Sampler(cfg, Path("unused"), "sampler-0", engine=ScriptedEngine(script=says), codec=Codec()) as sampler:
        group = await sampler.sample(job)
        assert sampler.metrics()["tokens"] == 16.0
    assert check_rollouts(group, 10, 0, 30, max_turns=4) == (0, 0)
    rollout = group.rollouts[1]
    assert ints(rollout.token_ids).tolist() == [3, 4, 5, 2, 9, 9, 9, 5, 4, 3, 2]
    assert (rollout.text, rollout.claim, rollout.ended) == ("cba", {"correct": 1.0, "tries": 2.0}, "done")
    verifier = load_verifier("claim", verifier_options(cfg))
    item = VerifyItem(prompt="abc", response=rollout.text, answer="", claim=rollout.claim, ended=rollout.ended)
    verdict = judge_item(verifier, verifier.name, item)
    assert (verdict.status, verdict.verifier, verdict.parts["tries"]) == ("correct", "env:backwards/1", 2.0)


def test_an_environment_and_spawned_verifications_exclude_each_other():
    table = {"name": "x", "task": {"environment": {"name": "calculator"}}, "stages": {"rl": {"spawn": {"share": 0.1}}}}
    with pytest.raises(ConfigError, match=r"stages\.rl\.spawn"):
        check_modules(convert(table, RunConfig, "x"))
    table["stages"] = {"rl": {}}
    table["task"]["environment"]["max_turns"] = 0
    with pytest.raises(ConfigError, match="task.environment: max_turns = 0"):
        check_modules(convert(table, RunConfig, "x"))
