"""Correction stages in the learner: what reaches the loss, what is measured first, VCPO's step size, lag."""

import numpy as np
import pytest
import torch

from rlsp_async import config
from rlsp_async.learning import optim, update
from tests.learning.test_update import data, learning, plan

STAGES = {"reject": "opsm", "mask": "icepop", "weight": "token"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reinforce", STAGES),
        ("reinforce", {**STAGES, "policy": "present", "weight": "rollout"}),
        ("rover", {"mask": "m2po"}),
        ("topr", {"mask": "m2po_released", "ess_base": 0.5}),
        ("rloo", {"reject": "geometric"}),
    ],
)
def test_the_size_of_micro_batches_changes_nothing(model_dir, name, options):
    results = []
    for capacity in (256, 20):
        made = update.train_batch(learning(model_dir, name, corrections=options), *data(), plan(capacity))
        results.append({k: v for k, v in made.items() if k != "tokens_per_s"})
    assert results[0] == pytest.approx(results[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["gspo", "cispo", "rover", "topr", "rloo"])
def test_every_algorithm_trains_a_step_of_several_updates(model_dir, name):
    metrics = update.train_batch(learning(model_dir, name), *data(), plan(minibatches=2, epochs=2))
    assert metrics["updates"] == 4.0
    assert np.isfinite(metrics["loss"])
    assert metrics["grad_norm"] > 0


def test_the_baseline_of_least_variance_is_measured_before_the_step(model_dir):
    options = {"baseline": "minimum_variance", "corrections": {"weight": "rollout", "ess_base": 1.0}}
    made = [
        update.train_batch(learning(model_dir, "reinforce", **options), *data(), plan(capacity))
        for capacity in (256, 20)
    ]
    assert made[0] == pytest.approx(made[1], rel=1e-4, abs=1e-6)
    assert made[0]["baseline_shift"] > 0
    assert update.train_batch(learning(model_dir, "reinforce"), *data(), plan())["loss"] != made[0]["loss"]


def test_a_mask_that_leaves_nothing_moves_nothing(model_dir):
    parts = learning(model_dir, "reinforce", corrections={"mask": "icepop", "mask_low": 1e6, "mask_high": 1e7})
    metrics = update.train_batch(parts, *data(), plan())
    assert metrics["grad_norm"] == 0.0
    assert (metrics["mask_kept_positive"], metrics["mask_kept_negative"], metrics["kept_fraction"]) == (0.0, 0.0, 1.0)


def test_what_is_left_out_does_not_make_the_rest_count_more(model_dir):
    """Half of the tokens masked by a behaviour log-prob far away: the others' gradient stays what it was."""
    sequences, reward = data()
    gradients = []
    for corrections in ({}, {"mask": "icepop"}):
        parts = learning(model_dir, "reinforce", corrections=corrections)
        members = np.arange(len(sequences.responses))
        rollouts = update.collect_columns(parts, sequences, reward, plan())
        adv = parts.algorithm.advantages(parts.cfg, rollouts)
        adv.adv_N[::2] = 0.0 if not corrections else 1.0
        rollouts.behaviour_N[::2] = -30.0
        rollouts.behaviour_N[1::2] = update.score(parts.policy, sequences, members, plan()).logp_N[1::2]
        stages = update.CorrectionStages(parts.cfg.corrections, 5.0)
        batch = update.PreparedBatch(sequences, rollouts, adv, stages)
        update.accumulate_gradients(parts, batch, members, plan())
        gradients.append(torch.cat([p.grad.flatten() for _, p in parts.policy.policy_parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_m2po_is_measured_before_the_first_update_even_if_it_is_the_only_one(model_dir, monkeypatch):
    calls = []
    real = update.score
    monkeypatch.setattr(update, "score", lambda *a: calls.append(len(a[2])) or real(*a))
    update.train_batch(learning(model_dir, "reinforce", corrections=STAGES), *data(), plan())
    assert calls == []
    update.train_batch(learning(model_dir, "reinforce", corrections={"mask": "m2po"}), *data(), plan())
    assert calls == [16]


def test_the_effective_share_of_rollouts_sets_the_step(model_dir):
    plain, scaled = (
        update.train_batch(learning(model_dir, "reinforce", corrections=c), *data(), plan())
        for c in ({}, {"ess_base": 1.0})
    )
    assert 0.0 < plain["rollout_ess"] < 1.0
    assert scaled["lr"] == pytest.approx(plain["lr"] * plain["rollout_ess"] ** 0.5)


def test_a_policy_factor_leaves_the_critic_alone(model_dir):
    parts = learning(model_dir, "ppo")
    before = {n: p.detach().clone() for n, p in (*parts.policy.policy_parameters(), *parts.policy.critic_parameters())}
    for p in parts.policy.parameters():
        p.grad = torch.ones_like(p)
    optim.Updater(config.OptimizerConfig(lr=1e-3, weight_decay=0.0), parts.policy, 0.0, 8).step(
        "here", policy_factor=0.0
    )
    moved = {
        n
        for n, p in (*parts.policy.policy_parameters(), *parts.policy.critic_parameters())
        if not torch.equal(p, before[n])
    }
    assert moved == {n for n, _ in parts.policy.critic_parameters()}


def test_lag_counts_from_each_tokens_version_to_the_weights_before_the_step(model_dir):
    sequences, reward = data()
    sequences.versions_N[:] = 0
    sequences.versions_N[0] = 3
    metrics = update.train_batch(
        learning(model_dir, "reinforce"), sequences, reward, update.UpdateSchedule(1, 1, 256, 1.0, (0, 4))
    )
    negative, positive = (metrics["all_lag_2_negative"], metrics["all_lag_2_positive"])
    assert metrics["all_lag_0_positive"] == pytest.approx(1 - positive)  # the one token of version 3 is of a success
    assert (negative, 0.9 < positive < 1.0) == (1.0, True)


def test_demonstrations_have_no_stages(model_dir):
    sequences, reward = data()
    sequences.versions_N[:] = -1
    metrics = update.train_batch(learning(model_dir, "sft"), sequences, reward, plan())
    assert not [name for name in metrics if name.startswith("all_")]


def test_pairs_share_a_micro_batch_whatever_its_size(model_dir):
    results = []
    for capacity in (256, 40):
        parts = learning(model_dir, "dpo", against="behaviour", pairs_per_group=2)
        made = update.train_batch(parts, *data(), plan(capacity))
        results.append((made["loss"], made["grad_norm"], made["margin"], made["pairs"], made["kept_fraction"]))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert results[0][3] >= 4


def test_a_pair_too_long_for_a_micro_batch_has_one_of_its_own(model_dir):
    parts = [learning(model_dir, "dpo", against="behaviour") for _ in range(2)]
    losses = [
        update.train_batch(part, *data(), plan(*size))["loss"] for part, size in zip(parts, ((), (18,)), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_m2po_measures_the_kept_rollouts_and_no_others(model_dir):
    """A token far away is dropped; the tokens of a group without signal, all far away, do not enter the mean."""
    sequences, reward = data()
    reward[sequences.group_B == 0] = 1.0
    parts = learning(model_dir, "reinforce", corrections={"mask": "m2po"})
    everyone = np.arange(len(sequences.responses))
    exact = update.score(parts.policy, sequences, everyone, plan()).logp_N.numpy()
    group_N = np.repeat(sequences.group_B, sequences.length_B)
    sequences.behaviour_N[:] = np.where(group_N == 0, exact - 5.0, exact - 0.1)
    far = np.flatnonzero(group_N == 1)[0]
    sequences.behaviour_N[far] = exact[far] - 3.0
    metrics = update.train_batch(parts, sequences, reward, plan())
    assert min(metrics["mask_kept_positive"], metrics["mask_kept_negative"]) < 1.0
    assert max(metrics["mask_kept_positive"], metrics["mask_kept_negative"]) == 1.0
    assert max(metrics["mask_largest_positive"], metrics["mask_largest_negative"]) == pytest.approx(
        np.exp(0.1), rel=1e-4
    )
