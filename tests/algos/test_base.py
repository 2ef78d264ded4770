"""Finding an algorithm and reading its options; the two RLSP presets."""

import pytest

from rlsp_async import config
from rlsp_async.algos import base, ppo
from rlsp_async.errors import ConfigError


def test_the_algorithms_that_ship():
    """At least these; further modules of the folder are found too."""
    assert set(base.names()) >= {
        "cispo",
        "dpo",
        "grpo",
        "gspo",
        "ppo",
        "reinforce",
        "reinforce_pp",
        "rloo",
        "rover",
        "sft",
        "topr",
    }


def test_options_go_on_top_of_the_preset():
    module, cfg = base.load_algorithm(
        config.AlgorithmChoice(name="ppo", preset="rlsp_released", options={"kl_coef": 0.1})
    )
    assert (module.NEEDS, cfg.kl_coef, cfg.lam) == (ppo.NEEDS, 0.1, 1.0)


def test_a_dotted_name_is_a_module():
    assert frozenset() == base.load_algorithm(config.AlgorithmChoice(name="rlsp_async.algos.sft"))[0].NEEDS


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (config.AlgorithmChoice(name="reinfroce"), "did you mean 'reinforce'"),
        (config.AlgorithmChoice(name="no.such.module"), "algorithm.name: no module 'no.such.module'"),
        (config.AlgorithmChoice(name="ppo", preset="rlsp_papr"), "did you mean 'rlsp_paper'"),
        (config.AlgorithmChoice(name="sft", preset="any"), "there is none"),
        (
            config.AlgorithmChoice(name="grpo", options={"clip_hi": 0.3}),
            "unknown key 'algorithm.options.clip_hi'; did you mean 'clip_high'",
        ),
        (config.AlgorithmChoice(name="rlsp_async.algos.maths"), "offers no 'Config', 'PRESETS', 'NEEDS'"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(section, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(section)


def test_the_paper_and_its_code_differ_where_they_differ():
    paper, released = (
        base.load_algorithm(config.AlgorithmChoice(name="ppo", preset=p))[1] for p in ("rlsp_paper", "rlsp_released")
    )
    assert (paper.lam, released.lam) == (0.95, 1.0)
    assert (paper.critic_warmup_steps, released.critic_warmup_steps) == (0, 4)
    assert (paper.returns, released.returns) == ("monte_carlo", "gae")
    assert (paper.reward_form, released.reward_form) == ("eq1", "released")
    assert (paper.normalize_reward, released.normalize_reward) == (True, False)
    for cfg in (paper, released):
        assert (cfg.clip, cfg.value_clip, cfg.kl_coef, cfg.critic, cfg.gamma) == (0.2, 0.2, 0.05, "separate", 1.0)
        assert (cfg.aggregation, cfg.critic_lr) == ("seq_mean", 2e-6)


@pytest.mark.parametrize("name", base.names())
def test_every_preset_is_valid(name):
    module, _ = base.load_algorithm(config.AlgorithmChoice(name=name))
    for preset in module.PRESETS:
        asked = dict.fromkeys(getattr(module, "ASKED", {}).get(preset, ()), 0.01)
        _, cfg = base.load_algorithm(config.AlgorithmChoice(name=name, preset=preset, options=asked))
        assert module.needs(cfg) <= module.NEEDS


def test_algorithms_of_users_may_call_the_maths_ops():
    from rlsp_async.algos import maths, ops

    assert ops is maths


def test_the_name_of_a_preset_says_of_which_algorithm_it_is():
    with pytest.raises(
        ConfigError, match=r"'dapo' is a preset of grpo: set algorithm.name to 'grpo' and algorithm.preset"
    ):
        base.load_algorithm(config.AlgorithmChoice(name="dapo"))
