"""Where a stage starts: from the stage before or from the base, also after a restart at any step."""

import msgspec
import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.learning.learner import Learner
from tests.learning.small import Shelf, digest, job

FILTERED = {"name": "filtered"}


def rounds_config(tmp_path, algorithm=FILTERED, **starts):
    """SFT of one step, then rounds of two, two and one steps; a checkpoint every second step."""
    sft = {
        "source": "demonstrations",
        "steps": 1,
        "groups_per_step": 4,
        "publish_every": 0,
        "algorithm": {"name": "sft"},
        "optimizer": {"lr": 1e-2},
    }
    steps = {"r1": 2, "r2": 2, "r3": 1}
    rounds = {
        name: {
            "steps": num,
            "groups_per_step": 4,
            "minibatches": 1,
            "algorithm": algorithm,
            "optimizer": {"lr": 1e-2},
            "start": starts.get(name, "base"),
        }
        for name, num in steps.items()
    }
    table = {
        "name": "t",
        "runs_dir": str(tmp_path),
        "stages": {"sft": sft, **rounds},
        "learner": {"checkpoint_every": 2, "device": "cpu", "tokens_per_microbatch": 128},
    }
    return config.convert(table, config.RunConfig, "test")


def jobs():
    return [
        job(1, "sft", 1, "demonstrations", last=True),
        job(2, "r1", 1),
        job(3, "r1", 2, last=True),
        job(4, "r2", 1),
        job(5, "r2", 2, last=True),
        job(6, "r3", 1, last=True),
    ]


def learner(cfg, model_dir):
    return Learner(cfg, model_dir, cfg.directory, Shelf())


def weights(made):
    return digest({n: p.detach() for n, p in made.policy.policy_parameters()})


def test_a_stage_that_starts_from_the_base_forgets_the_stages_between(tmp_path, model_dir):
    """r3 after two rounds makes the bits of r3 right after SFT."""
    through = learner(rounds_config(tmp_path / "a"), model_dir)
    for each in jobs():
        through.train(each)
    cfg = rounds_config(tmp_path / "b")
    short = msgspec.structs.replace(cfg, stages={name: cfg.stages[name] for name in ("sft", "r3")})
    straight = learner(short, model_dir)
    straight.train(jobs()[0])
    batch = msgspec.structs.replace(jobs()[5].batch, step=2)
    assert weights(straight) != weights(through)
    straight.train(msgspec.structs.replace(jobs()[5], batch=batch))
    assert weights(straight) == weights(through)


def test_without_it_a_stage_goes_on(tmp_path, model_dir):
    made = {}
    for start in ("base", "previous"):
        each = learner(rounds_config(tmp_path / start, r2=start, r3=start), model_dir)
        for batch in jobs():
            each.train(batch)
        made[start] = weights(each)
    assert made["base"] != made["previous"]


@pytest.mark.parametrize(
    ("killed_after", "algorithm"),
    [
        (1, FILTERED),
        (3, FILTERED),
        (4, FILTERED),
        (5, FILTERED),
        (4, {"name": "ppo", "options": {"critic": "separate"}}),
    ],
)
def test_a_learner_killed_after_any_step_ends_with_the_same_bits(tmp_path, model_dir, killed_after, algorithm):
    straight = learner(rounds_config(tmp_path / "a", algorithm), model_dir)
    for each in jobs():
        straight.train(each)
    cfg = rounds_config(tmp_path / "b", algorithm)
    first = learner(cfg, model_dir)
    for each in jobs()[:killed_after]:
        first.train(each)
    second = learner(cfg, model_dir)
    for each in jobs()[second.step :]:
        second.train(each)
    assert weights(second) == weights(straight)


def test_only_the_base_is_kept_where_nobody_asks_for_a_reference(tmp_path, model_dir):
    made = learner(rounds_config(tmp_path), model_dir)
    for each in jobs():
        made.train(each)
    assert [path.name for path in (tmp_path / "t" / "reference").iterdir()] == ["r1.safetensors"]
    plain = learner(rounds_config(tmp_path / "b", r1="previous", r2="previous", r3="previous"), model_dir)
    for each in jobs()[:4]:
        plain.train(each)
    assert not (tmp_path / "b" / "t" / "reference").exists()


def test_a_base_that_is_gone_or_damaged_is_named(tmp_path, model_dir):
    made = learner(rounds_config(tmp_path), model_dir)
    for each in jobs()[:3]:
        made.train(each)
    path = tmp_path / "t" / "reference" / "r1.safetensors"
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="r1.safetensors.*cannot be read"):
        made.train(jobs()[3])


def test_there_is_no_base_before_a_stage_that_samples():
    stages = {"sft": {"source": "demonstrations", "start": "base"}, "rl": {}}
    with pytest.raises(ConfigError, match="stages.sft.start.*no base yet"):
        config.convert({"name": "t", "stages": stages}, config.RunConfig, "test")
    table = {"name": "t", "stages": {"sft": {"source": "demonstrations", "start": "base"}}}
    with pytest.raises(ConfigError, match="stages.sft.start"):
        config.convert(table, config.RunConfig, "test")
