"""The updates of a step: micro-batches add up, minibatches are whole groups, epochs count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlsp_async import config
from rlsp_async.algos.base import Terms, load_algorithm
from rlsp_async.errors import DivergedError
from rlsp_async.learning import optim, rows, update
from rlsp_async.learning.policy import Policy, load_model
from tests.learning.small import job


def learning(model_dir, name="ppo", **options):
    module, cfg = load_algorithm(config.AlgorithmChoice(name=name, options=options))
    made = Policy(load_model(model_dir), cfg.critic, cfg.num_values())
    reference = Policy(load_model(model_dir)) if "reference" in module.needs(cfg) else None
    return update.UpdateContext(
        module, cfg, made, optim.Updater(config.OptimizerConfig(lr=1e-3), made, 0.0, 8), reference
    )


def plan(capacity=256, epochs=1, minibatches=1):
    return update.UpdateSchedule(epochs, minibatches, capacity, 1.0, (0, 1), where="stage 'rl', step 1")


def data(step=1):
    made = rows.read_rows(job(step, "rl", 1).batch)
    return made.sequences, torch.from_numpy(made.parts["correct"]).float()


def test_a_pass_for_scores_computes_no_entropy(model_dir, monkeypatch):
    parts, asked = learning(model_dir, "sft"), []
    outputs = parts.policy.outputs

    def spied(row, temperature, request):
        asked.append(request.has_entropy)
        return outputs(row, temperature, request)

    monkeypatch.setattr(parts.policy, "outputs", spied)
    update.score(parts.policy, data()[0], np.arange(16), plan())
    assert asked
    assert not any(asked)


@pytest.mark.parametrize(
    ("aggregation", "weigh"),
    [
        ("token_mean", lambda length: np.full(len(length), 1 / length.sum())),
        ("seq_mean", lambda length: 1 / (len(length) * length)),
    ],
)
def test_the_loss_is_the_mean_that_was_asked_for(model_dir, aggregation, weigh):
    parts = learning(model_dir, "sft", aggregation=aggregation)
    sequences, reward = data()
    logp_N, *_ = update.score(parts.policy, sequences, np.arange(16), plan())
    length = sequences.length_B
    expected = -(logp_N.numpy() * np.repeat(weigh(length), length)).sum()
    assert update.train_batch(parts, sequences, reward, plan(capacity=40))["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sft", {}),
        ("grpo", {}),
        ("grpo", {"aggregation": "seq_mean"}),
        ("reinforce", {}),
        ("ppo", {}),
        ("ppo", {"critic": "separate"}),
    ],
)
def test_the_size_of_micro_batches_changes_nothing(model_dir, name, options):
    results = []
    for capacity in (256, 20):
        parts = learning(model_dir, name, **options)
        metrics = update.train_batch(parts, *data(), plan(capacity))
        results.append((metrics["loss"], metrics["grad_norm"], metrics["entropy"], metrics["tokens"]))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_a_single_update_of_grpo_needs_no_pass_for_old_log_probs(model_dir, monkeypatch):
    calls = []
    real = update.score
    monkeypatch.setattr(update, "score", lambda *a: calls.append(len(a[2])) or real(*a))
    single = update.train_batch(learning(model_dir, "grpo"), *data(), plan())
    assert calls == []
    sequences, reward = data()
    reward[sequences.group_B == 0] = 1.0
    update.train_batch(learning(model_dir, "grpo"), sequences, reward, plan(minibatches=2))
    assert calls == [12]  # the group without signal is not scored
    assert single["clip_positive"] == 0.0


def test_epochs_and_minibatches_are_updates(model_dir):
    parts = learning(model_dir, "grpo", drop_flat_groups=False)
    metrics = update.train_batch(parts, *data(), plan(epochs=2, minibatches=3))
    assert (metrics["updates"], parts.updater.num_done) == (6.0, 6)


def test_minibatches_are_whole_groups_in_an_order_of_the_seed():
    group_B = np.repeat(np.arange(5), 3)
    kept = np.flatnonzero(group_B != 2)
    made = update.minibatches(kept, group_B, 2, (0, 1, 0))
    assert sorted(np.concatenate(made).tolist()) == kept.tolist()
    assert [len(m) for m in made] == [6, 6]
    assert all(len(set(group_B[m])) == 2 for m in made)
    assert [m.tolist() for m in made] == [m.tolist() for m in update.minibatches(kept, group_B, 2, (0, 1, 0))]
    assert len(update.minibatches(kept, group_B, 9, (0, 1, 0))) == 4
    assert update.minibatches(kept[:0], group_B, 2, (0, 1, 0)) == []


def test_a_batch_without_signal_updates_nothing(model_dir):
    parts = learning(model_dir, "grpo")
    sequences, reward = data()
    metrics = update.train_batch(parts, sequences, torch.ones_like(reward), plan())
    assert (metrics["updates"], metrics["kept_fraction"], metrics["tokens"]) == (0.0, 0.0, 0.0)


def test_a_step_reports_what_it_must(model_dir):
    metrics = update.train_batch(learning(model_dir, "ppo"), *data(), plan(minibatches=2))
    assert {
        "loss",
        "policy_loss",
        "value_loss",
        "kl_behaviour",
        "kl_reference",
        "entropy",
        "clip_positive",
        "clip_negative",
        "ess_fraction",
        "grad_norm",
        "critic_grad_norm",
        "lr",
        "tokens",
        "response_tokens",
        "explained_variance",
        "adv_mean",
        "adv_std",
        "kept_fraction",
    } <= set(metrics)
    assert metrics["adv_mean"] == pytest.approx(0.0, abs=1e-5)
    assert 0.0 < metrics["ess_fraction"] <= 1.0
    assert metrics["kl_behaviour"] >= 0.0


def terms(sequences, correct, alpha=0.8):
    return Terms(correct, torch.from_numpy(-10.0 / sequences.length_B).float(), alpha)


def test_two_streams_report_both_and_learn_both(model_dir):
    results = []
    for capacity in (256, 20):
        parts = learning(model_dir, "rlsp_streams", bound=0.5)
        sequences, correct = data()
        paid = terms(sequences, correct)
        metrics = update.train_batch(
            parts, sequences, 0.8 * correct + 0.2 * paid.explore_B, plan(capacity, minibatches=2), paid
        )
        results.append((metrics["loss"], metrics["grad_norm"], metrics["opposed_fraction"]))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert {
        "adv_std_outcome",
        "adv_std_explore",
        "explained_variance_outcome",
        "explained_variance_explore",
        "opposed_fraction",
        "bounded_fraction",
        "value_loss_outcome",
        "value_loss_explore",
    } <= set(metrics)
    assert "explained_variance" not in metrics
    assert all(bool((row != 0).any()) for row in parts.policy.value_head.weight)
    assert parts.policy.value_head.bias.tolist() == pytest.approx(
        [float(paid.outcome_B.mean()), float(paid.explore_B.mean())], abs=0.01
    )


def test_a_behaviour_log_prob_that_is_not_finite_is_masked(model_dir):
    sequences, reward = data()
    sequences.behaviour_N[0] = -np.inf
    metrics = update.train_batch(learning(model_dir, "ppo"), sequences, reward, plan())
    assert metrics["masked_fraction"] == pytest.approx(1 / len(sequences.behaviour_N))
    assert np.isfinite(metrics["loss"])


def test_a_loss_that_is_not_finite_is_divergence(model_dir):
    sequences, reward = data()
    with pytest.raises(DivergedError, match="stage 'rl', step 1: the loss is nan"):
        update.train_batch(learning(model_dir, "ppo"), sequences, reward * float("nan"), plan())


def test_a_rollout_longer_than_a_micro_batch_is_trained_in_one_of_its_own(model_dir):
    losses = [
        update.train_batch(learning(model_dir, "sft"), *data(), plan(**size))["loss"] for size in ({}, {"capacity": 8})
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_sft_learns_its_demonstrations(model_dir):
    parts = learning(model_dir, "sft")
    losses = [update.train_batch(parts, *data(), plan())["loss"] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.02


def test_a_batch_of_two_temperatures_scores_each_rollout_at_its_own(model_dir):
    sequences, reward = data()
    parts, everyone = learning(model_dir, "grpo"), np.arange(16)
    temperature_B = np.where(np.arange(16) < 8, 0.6, 1.3).astype(np.float32)
    mixed = replace(sequences, temperature_B=temperature_B)
    found = update.score(parts.policy, mixed, everyone, plan(capacity=40)).logp_N
    for temperature, members in ((0.6, everyone[:8]), (1.3, everyone[8:])):
        alone = update.score(parts.policy, sequences, members, replace(plan(), temperature=temperature)).logp_N
        at = torch.from_numpy(np.isin(np.repeat(everyone, sequences.length_B), members))
        torch.testing.assert_close(found[at], alone[at])
    on_policy = replace(mixed, behaviour_N=found.numpy())
    assert update.train_batch(parts, on_policy, reward, plan())["kl_behaviour"] == pytest.approx(0.0, abs=1e-9)


def test_an_entropy_bonus_raises_the_entropy(model_dir):
    sequences, reward = data()
    entropies = {}
    for coef in (0.0, 1.0):
        parts = learning(model_dir, "t1", entropy_coef=coef, kl_coef=0.0)
        update.train_batch(parts, sequences, torch.zeros_like(reward), plan(epochs=4))
        entropies[coef] = update.train_batch(parts, sequences, torch.zeros_like(reward), plan())["entropy"]
    assert entropies[1.0] > entropies[0.0] + 1e-3
