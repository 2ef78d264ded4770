"""Ranges and shapes: every setting of every section has one, and what lies outside is refused in one sentence."""

import importlib
import math
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

import rlsp_async
from rlsp_async import config
from rlsp_async.config import Section, load
from rlsp_async.config.flatten import settings
from rlsp_async.config.ranges import INFINITY, Range, SettingError, rules_of
from rlsp_async.config.reference import read_kind
from rlsp_async.errors import ConfigError
from rlsp_async.replay.spawn import SpawnConfig

SMALL = 'name = "x"\n[stages.rl]\nsteps = 2\n'


def sections() -> list[type[Section]]:
    """Every section of the package: those of the run and the options of every plugin."""
    for folder in ("algos", "tasks", "verifying", "prompts", "temperatures", "replay"):
        package = importlib.import_module(f"rlsp_async.{folder}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in module.name:
                importlib.import_module(module.name)

    def below(kind: type[Section]) -> Iterator[type[Section]]:
        for inner in kind.__subclasses__():
            yield inner
            yield from below(inner)

    ours = [kind for kind in below(Section) if kind.__module__.startswith(f"{rlsp_async.__name__}.")]
    return [kind for kind in ours if kind.__name__.endswith(("Config", "Choice"))]


def test_every_number_has_a_range_and_every_text_a_shape() -> None:
    found = sections()
    assert len(found) > 60
    bare = [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in found
        for name, rule in rules_of(kind).items()
        if rule.bound is None and rule.kinds & {int, float, str} and not rule.choices
    ]
    known = {"before", "after"}  # names of stages, which RunConfig looks up
    assert [name for name in bare if name.rpartition(".")[2] not in known] == []


def test_a_range_begins_and_ends() -> None:
    for kind in sections():
        for name, rule in rules_of(kind).items():
            if isinstance(rule.bound, Range):
                assert rule.bound.ge is not None or rule.bound.gt is not None, (kind, name)
                assert rule.bound.le is not None or rule.bound.lt is not None, (kind, name)


def test_no_number_of_any_section_may_be_nan() -> None:
    for kind in sections():
        for name, rule in rules_of(kind).items():
            if rule.kinds & {int, float}:
                assert not rule.allows(math.nan), (kind, name)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed=-1", "seed = -1: must be a whole number at least 0"),
        ("seed=18446744073709551616", "seed = 18446744073709551616: must be a whole number"),
        ("seed=1e23", "seed = 1e+23: Expected `int`, got `float`; must be a whole number"),
        ("stages.rl.steps=1e20", "stages.rl.steps = 1e+20"),
        ("stages.rl.optimizer.lr=nan", "stages.rl.optimizer.lr = nan: must be a number at least 0 and at most 10"),
        ("stages.rl.optimizer.lr=1e400", "stages.rl.optimizer.lr = inf: must be a number"),
        ("stages.rl.optimizer.betas=[0.9,1.0]", "stages.rl.optimizer.betas = 1.0: must be a number at least 0 and below 1"),
        ("stages.rl.optimizer.clip_norm=-1", "stages.rl.optimizer.clip_norm = -1"),
        ("stages.rl.optimizer.floor=-1", "stages.rl.optimizer.floor = -1"),
        ("stages.rl.reward.clip=0", "stages.rl.reward.clip = 0"),
        ("stages.rl.reward.alpha_end=-2", "stages.rl.reward.alpha_end = -2.0: must be a number at least 0 and at most 1, or -1"),
        ("stages.rl.publish_every=-1", "stages.rl.publish_every = -1"),
        ("sampler.count=-1", "sampler.count = -1"),
        ("verifier.count=-1", "verifier.count = -1"),
        ("sampler.memory=0", "sampler.memory = 0"),
        ("sampler.tensor_parallel=0", "sampler.tensor_parallel = 0"),
        ("sampler.probe_tolerance=nan", "sampler.probe_tolerance = nan"),
        ("replay.heartbeat_s=0", "replay.heartbeat_s = 0"),
        ("replay.stall_s=nan", "replay.stall_s = nan"),
        ("replay.retries=-1", "replay.retries = -1"),
        ("evaluation.rollouts=0", "evaluation.rollouts = 0"),
        ("evaluation.prompts=-3", "evaluation.prompts = -3"),
        ("learner.checkpoint_every=-1", "learner.checkpoint_every = -1"),
        ("learner.tokens_per_microbatch=0", "learner.tokens_per_microbatch = 0"),
        ("learner.device=tpu", "learner.device = 'tpu': unknown value; must be 'auto' or 'cpu' or 'cuda'"),
        ("model.scratch.head_dim=33", "model.scratch.head_dim = 33: must be a whole number at least 2 and at most 1,024, a multiple of 2"),
        ("model.path=\"a\\u0000b\"", "model.path = 'a\\x00b': must be a path"),
        ("stages..steps=3", "stages.'': a name must be 1 to 64 letters"),
        ("stages.'a b'.steps=3", "a name must be 1 to 64 letters"),
        ("stages.rl.drop_no_signal=1", "stages.rl.drop_no_signal = 1: Expected `bool`, got `int`; must be true or false"),
    ],
)  # fmt: skip
def test_what_cannot_mean_anything_is_refused_in_one_sentence(tmp_path: Path, override: str, sentence: str) -> None:
    (tmp_path / "run.toml").write_text(SMALL)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "run.toml", [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


NONSENSE = [
    *("nan", "inf", "-inf", "-1", "-0.0", "0", "1e400", "-1e400", "1e-400", "1e300", "18446744073709551616"),
    *("-9223372036854775809", "1.5", ".5", "1.", "+3", "0x10", "1_000", "true", "True", "None", "null", "auto"),
    *(
        "''",
        "' '",
        '"\\u0000"',
        '"a\\nb"',
        '"\\u202e"',
        "'\u00e9\u4e2d'",
        f"'{'x' * 5000}'",
        "%s",
        "{0}",
        "a=b",
        "--",
        "=",
    ),
    *("[]", "[1]", "['a']", "[nan]", "[[[]]]", "[" * 3000, "{}", "{a=1}", "{a={b=nan}}", "1979-05-27", "12:00:00"),
]
"""Values that mean something in few settings, or in none."""


def test_nonsense_in_any_setting_means_something_or_is_one_sentence(tmp_path: Path) -> None:
    """About 4,400 overrides: every setting with every value. None raises anything but a sentence that names the key."""
    (tmp_path / "run.toml").write_text(SMALL)
    num_refused = 0
    for key in settings(load(tmp_path / "run.toml")):
        for text in NONSENSE:
            made, sentence = loaded(tmp_path / "run.toml", f"{key}={text}")
            num_refused += bool(sentence)
            assert "\n" not in sentence, (key, text)
            assert len(sentence) < 600, (key, text)
            first, _, last = key.partition(".")
            assert not sentence or last.rpartition(".")[2] in sentence or first in sentence, (key, text, sentence)
            for value in (value for name, value in made.items() if name.startswith(key)):
                assert not isinstance(value, float) or math.isfinite(value), (key, text)
                assert not isinstance(value, str) or (len(value) <= 4000 and "\0" not in value), (key, text)
    assert num_refused > 3000


def loaded(path: Path, override: str) -> tuple[dict[str, object], str]:
    """The settings, or the sentence with which they are refused."""
    try:
        return settings(load(path, [override])), ""
    except ConfigError as e:
        return {}, str(e)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("lr=.001", 0.001),
        ("lr=1.e-4", 1e-4),
        ("lr=1e-4", 1e-4),
        ("lr=1.", 1.0),
        ("lr=+.5E-2", 0.005),
        ("clip_norm=0", 0.0),
        ("warmup_steps=0", 0),
    ],
)
def test_numbers_as_python_writes_them(tmp_path: Path, override: str, value: float) -> None:
    (tmp_path / "run.toml").write_text(SMALL)
    cfg = load(tmp_path / "run.toml", [f"stages.rl.optimizer.{override}", "stages.rl.drop_no_signal=True"])
    assert getattr(cfg.stages["rl"].optimizer, override.partition("=")[0]) == value
    assert cfg.stages["rl"].drop_no_signal is True


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("optimizer = { lr = .001 }", "; TOML writes .001 as 0.001"),
        ("optimizer.lr = 1.e-4", "; TOML writes 1.e-4 as 0.0001"),
        ("drop_no_signal = True", "; TOML writes True as true"),
    ],
)
def test_a_file_is_told_how_toml_writes_it(tmp_path: Path, line: str, hint: str) -> None:
    (tmp_path / "run.toml").write_text(SMALL + line + "\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "run.toml")
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("text", [f"x = {'[' * 200_000}", "a" + ".a" * 3_000 + " = 1"])
def test_endless_nesting_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text(SMALL + text)
    with pytest.raises(ConfigError, match=r"nested too deep|unknown key|no valid TOML"):
        load(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="nested too deep"):
        load(Path("launch/configs/ops_cpu_smoke.toml"), [f"seed={'[' * 200_000}"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: config.OptimizerConfig(lr=math.nan),
        lambda: config.OptimizerConfig(betas=(0.9, math.inf)),
        lambda: config.SamplerConfig(count=True),
        lambda: config.SamplerConfig(count=1.5),  # type: ignore[arg-type]
        lambda: config.SamplerConfig(engine="sglang"),  # type: ignore[arg-type]
        lambda: config.StageConfig(steps=0),
        lambda: config.RunConfig(name="x", stages={"": config.StageConfig()}),
        lambda: SpawnConfig(share=0.6),
    ],
)
def test_construction_in_python_is_checked_too(make: Any) -> None:
    with pytest.raises(SettingError):
        make()


class OwnConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's own options, with a check of their own that does not call that of the base."""

    share: Annotated[float, Range(ge=0, le=1, also=(INFINITY,))] = 0.0
    free: float = 0.0
    kind: float | Literal["auto"] = "auto"
    table: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.share == 0.5:
            raise ValueError("not a half")


def test_a_section_of_the_user_is_checked_before_its_own_check() -> None:
    with pytest.raises(SettingError, match="share = 2: must be a number at least 0 and at most 1, or inf"):
        OwnConfig(share=2)
    with pytest.raises(ValueError, match="not a half"):
        OwnConfig(share=0.5)
    for bad in ({"free": math.inf}, {"kind": "manual"}, {"table": {"a": [math.nan]}}):
        with pytest.raises(SettingError):
            OwnConfig(**bad)  # type: ignore[arg-type]
    assert OwnConfig(share=math.inf, table={"a": math.inf}).share == math.inf


def test_meaningful_specials_are_what_peers_have() -> None:
    assert config.OptimizerConfig(clip_norm=0).clip_norm == 0
    assert config.LearnerConfig(checkpoint_every=0).checkpoint_every == 0
    assert config.StageConfig(publish_every=0).publish_every == 0


def test_the_page_of_settings_shows_ranges() -> None:
    assert read_kind("Annotated[int, Range(ge=1, le=10**9)]") == ("int", "at least 1 and at most 1,000,000,000")
    assert read_kind("Annotated[float, Range(ge=0, le=1, also=(-1,))] | Literal['auto']")[1].endswith("1, or -1")
    assert read_kind("PathText")[0] == "str"
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert "`lr` (`float`, at least 0 and at most 10" in " ".join(page.split())
