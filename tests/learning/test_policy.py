"""Log-probs, entropy and values of the packed policy."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlsp_async.errors import DataError
from rlsp_async.learning import attention, pack, policy
from tests.learning.small import VOCABULARY


def batch(seed=0, num=3):
    rng = np.random.default_rng(seed)
    responses = [rng.integers(0, VOCABULARY, n).astype(np.int32) for n in rng.integers(2, 9, num)]
    total = sum(len(r) for r in responses)
    made = pack.Sequences(
        [rng.integers(0, VOCABULARY, 3).astype(np.int32) for _ in responses],
        responses,
        np.zeros(total, np.float32),
        np.zeros(total, np.int32),
        np.arange(num),
        np.zeros(num, np.int64),
    )
    return pack.pack_sequences(made, range(num))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_distribution_that_was_sampled(model_dir, temperature):
    from transformers import AutoModelForCausalLM

    row = batch(num=1)
    made = policy.Policy(policy.load_model(model_dir)).outputs(row, temperature)
    logits = AutoModelForCausalLM.from_pretrained(model_dir)(torch.from_numpy(row.ids_T)[None]).logits[0]
    logp = torch.log_softmax(logits / temperature, -1)[row.source_R]
    expected = logp.gather(1, torch.from_numpy(row.target_R)[:, None])[:, 0]
    torch.testing.assert_close(made.logp_R, expected, atol=1e-5, rtol=1e-5)
    entropy = torch.distributions.Categorical(logits=logp).entropy()
    torch.testing.assert_close(made.entropy_R, entropy, atol=1e-5, rtol=1e-4)
    assert made.values_R is None


def test_chunks_over_the_vocabulary_change_nothing(model_dir, monkeypatch):
    model, row = policy.load_model(model_dir), batch()
    grads = []
    for size in (1 << 26, 2 * VOCABULARY):
        monkeypatch.setitem(policy.CHUNK_LOGITS, "cpu", size)
        model.zero_grad()
        out = policy.Policy(model).outputs(row, 0.8)
        out.logp_R.sum().backward()
        grads.append((out.logp_R.detach(), model.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1])


def test_each_token_is_scored_at_the_temperature_that_drew_it(model_dir, monkeypatch):
    made, row = policy.Policy(policy.load_model(model_dir)), batch()
    temperature_R = np.array([0.5, 1.0, 1.4], np.float32)[row.sequence_R]
    mixed = replace(row, temperature_R=temperature_R)
    for size in (1 << 26, 2 * VOCABULARY):
        monkeypatch.setitem(policy.CHUNK_LOGITS, "cpu", size)
        together = made.outputs(mixed, 1.0)
        for number, temperature in enumerate((0.5, 1.0, 1.4)):
            at, alone = torch.from_numpy(row.sequence_R == number), made.outputs(row, temperature)
            torch.testing.assert_close(together.logp_R[at], alone.logp_R[at])
            torch.testing.assert_close(together.entropy_R[at], alone.entropy_R[at])


def test_the_entropys_gradient_is_there_when_it_is_asked_for(model_dir, monkeypatch):
    made, row, grads = policy.Policy(policy.load_model(model_dir)), batch(), []
    assert not made.outputs(row, 0.8).entropy_R.requires_grad
    for size in (1 << 26, 2 * VOCABULARY):
        monkeypatch.setitem(policy.CHUNK_LOGITS, "cpu", size)
        made.zero_grad()
        made.outputs(row, 0.8, policy.ForwardRequest(entropy=True)).entropy_R.sum().backward()
        grads.append(made.model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])
    assert float(grads[0].abs().sum()) > 0


def test_the_entropy_is_left_out_where_nobody_reads_it(model_dir):
    made, row = policy.Policy(policy.load_model(model_dir)), batch()
    without = made.outputs(row, 0.8, policy.ForwardRequest(has_entropy=False))
    assert not bool(without.entropy_R.any())
    torch.testing.assert_close(without.logp_R, made.outputs(row, 0.8).logp_R, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "reaches_trunk"), [("head", True), ("head_detached", False), ("separate", False)])
def test_the_critic_starts_at_zero_and_its_gradient_stays_where_it_belongs(model_dir, kind, reaches_trunk):
    made = policy.Policy(policy.load_model(model_dir), kind)
    values = made.outputs(batch(), 1.0).values_R
    assert values.shape == batch().target_R.shape
    assert values.dtype == torch.float32
    assert bool((values == 0).all())
    made.value_head.weight.data.fill_(0.1)
    made.outputs(batch(), 1.0).values_R.sum().backward()
    trunk = next(made.policy_parameters())[1].grad
    assert (trunk is not None and bool(trunk.abs().sum() > 0)) == reaches_trunk
    assert all(p.grad is not None for _, p in made.critic_parameters())


def test_a_fresh_critic_begins_at_the_mean_and_a_trained_one_is_left_alone(model_dir):
    made = policy.Policy(policy.load_model(model_dir), "head")
    made.center_values(0.4)
    assert made.outputs(batch(), 1.0).values_R.unique().tolist() == pytest.approx([0.4])
    made.center_values(0.9)
    assert made.value_head.bias.item() == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_two_value_heads_are_two_columns_that_begin_apart(model_dir, kind):
    made = policy.Policy(policy.load_model(model_dir), kind, 2)
    made.center_values(0.4, -2.0)
    values = made.outputs(batch(), 1.0).values_R
    assert values.shape == (*batch().target_R.shape, 2)
    assert [values[:, k].unique().tolist() for k in range(2)] == [pytest.approx([0.4]), [-2.0]]
    assert {n: p.shape[0] for n, p in made.critic_parameters() if n.startswith("value_head")} == {
        "value_head.weight": 2,
        "value_head.bias": 2,
    }


def test_gradient_checkpointing_changes_nothing(model_dir):
    grads = []
    for checkpointing in (False, True):
        model = policy.load_model(model_dir, gradient_checkpointing=checkpointing)
        policy.Policy(model).outputs(batch(), 1.0).logp_R.sum().backward()
        grads.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_a_directory_without_a_model_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        policy.load_model(tmp_path)


def test_sliding_windows_are_refused(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "m")
    settings = json.loads((tmp_path / "m" / "config.json").read_text())
    settings["layer_types"] = ["full_attention", "sliding_attention"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="sliding_attention"):
        policy.load_model(tmp_path / "m")


def test_the_mean_over_the_vocabulary_is_that_of_the_logits(model_dir, monkeypatch):
    made, row = policy.Policy(policy.load_model(model_dir)), batch()
    logits = []
    monkeypatch.setattr(policy.F, "log_softmax", lambda x, dim: logits.append(x) or x.log_softmax(dim))
    mean_R = made.outputs(row, 0.5, policy.ForwardRequest(mean=True)).mean_R
    expected = logits[0].mean(-1) - logits[0].logsumexp(-1)
    torch.testing.assert_close(mean_R, expected.detach())
    assert made.outputs(row, 0.5).mean_R is None


def test_the_energy_is_the_squared_norm_of_the_gradient_by_the_logits(model_dir):
    row, made = batch(num=2), policy.Policy(policy.load_model(model_dir))
    logits = (
        made.model.get_output_embeddings()(
            policy.run_trunk(
                made.model.get_decoder(),
                torch.from_numpy(row.ids_T),
                torch.from_numpy(row.position_ids_T),
                attention.Spans.of(row.cu_seqlens, made.device),
            )
        )
        .detach()[row.source_R]
        .requires_grad_()
    )
    for temperature in (1.0, 0.7):
        logp = torch.log_softmax(logits / temperature, -1).gather(1, torch.from_numpy(row.target_R)[:, None])
        grad = torch.autograd.grad(logp.sum(), logits)[0]
        torch.testing.assert_close(
            made.outputs(row, temperature, policy.ForwardRequest(energy=True)).energy_R, grad.square().sum(-1)
        )
    assert made.outputs(row, 1.0).energy_R is None
