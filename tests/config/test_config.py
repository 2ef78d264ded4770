"""The settings: what is refused and how it is said, overrides, and every shipped configuration."""

from pathlib import Path

import pytest

from rlsp_async.config import RunConfig, convert, load, num_settings, to_toml
from rlsp_async.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "launch" / "configs").glob("*.toml"))
SMALL = 'name = "x"\n[stages.rl]\nsteps = 2\n'


def write(directory: Path, text: str) -> Path:
    path = directory / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_read_and_names_itself(path: Path) -> None:
    assert load(path).name == path.stem


def test_there_are_six_of_them() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "ops_cpu",
        "ops_cpu_grpo",
        "ops_cpu_smoke",
        "gsm8k_cpu_smoke",
        "gsm8k_qwen2.5-1.5b_1gpu",
        "gsm8k_qwen2.5-7b_lora_1gpu",
        "gsm8k_qwen2.5-1.5b_2gpu",
    }


def test_fewer_than_a_hundred_settings() -> None:
    assert 50 < num_settings() < 120


def test_resolved_settings_read_back_the_same(tmp_path: Path) -> None:
    cfg = load(CONFIGS[0])
    assert load(write(tmp_path, to_toml(cfg))) == cfg


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "stepz = 3\n", "unknown key 'stages.rl.stepz'; did you mean 'steps'?"),
        (SMALL + "[sampler]\ncuont = 3\n", "unknown key 'sampler.cuont'; did you mean 'count'?"),
        ("nam = 1\n" + SMALL, "unknown key 'nam'; did you mean 'name'?"),
        (
            SMALL + "[sampler]\ncount = 'two'\n",
            "sampler.count = 'two': Expected `int`, got `str`; must be a whole number at least 0",
        ),
        (
            SMALL + "groups_per_step = 0\n",
            "stages.rl.groups_per_step = 0: must be a whole number at least 1 and at most 1,000,000",
        ),
        (SMALL + "target_lag = 5\n", "stages.rl: max_lag 4 is below target_lag 5"),
        (SMALL + "[evaluation]\nbefore = ['sft']\n", "evaluation names stage 'sft'; there is rl"),
        ('name = "x"\n', "stages"),
        ('name = "a/b"\n[stages.rl]\n', "name = 'a/b': must be a directory name"),
        ("name = \n", "no valid TOML"),
    ],
)
def test_a_bad_setting_is_one_sentence_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_says_where_shipped_ones_are() -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: no such file; shipped ones lie in launch/configs/"):
        load("nowhere.toml")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=3", 3),
        ("stages.rl.steps=40", 40),
        ("stages.rl.steps = 40", 40),
        ("task.name=gsm8k", "gsm8k"),
        ("stages.rl.optimizer.lr=3e-4", 3e-4),
        ("task.options.k=3", 3),
        ("evaluation.before=['rl']", ["rl"]),
        ("model.path=/a=b", "/a=b"),
        ("learner.gradient_checkpointing=true", True),
    ],
)
def test_override(tmp_path: Path, override: str, value: object) -> None:
    found: object = load(write(tmp_path, SMALL), [override])
    for name in override.partition("=")[0].strip().split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value


@pytest.mark.parametrize("override", ["seed", "=3", "seed.x=3"])
def test_bad_override(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        load(write(tmp_path, "seed = 1\n" + SMALL), [override])


def test_the_slot_law_is_a_property() -> None:
    cfg = convert({"name": "x", "stages": {"rl": {"groups_per_step": 32, "target_lag": 1}}}, RunConfig, "x")
    assert cfg.stages["rl"].capacity == 64


@pytest.mark.parametrize("name", ["ops_cpu_smoke", "ops_cpu_smoke.toml", "launch/configs/ops_cpu_smoke.toml"])
def test_a_shipped_configuration_is_found_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(name).name == "ops_cpu_smoke"
    with pytest.raises(ConfigError, match="no such file"):
        load(f"elsewhere/{name}")
