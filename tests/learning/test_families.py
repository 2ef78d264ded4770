"""Families of models: what is trained has the log-probs of the model's own forward pass; the others are refused.

The sampler's side of the same table is in tests/sampling/test_families.py.
"""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rlsp_async.errors import DataError
from rlsp_async.learning import fidelity, pack, policy, publish
from rlsp_async.learning.fence import WriteFence
from rlsp_async.weights.snapshot import infos_of
from tests.model.families import BASE, FAMILIES, make_model

TRAINED = [name for name, family in FAMILIES.items() if not family.refused]
REFUSED = [name for name, family in FAMILIES.items() if family.refused]


def row(seed=0):
    """Four sequences of different lengths, all but one longer than a sliding window of 9."""
    rng = np.random.default_rng(seed)
    responses = [rng.integers(0, BASE["vocab_size"], n).astype(np.int32) for n in (33, 2, 21, 14)]
    total = sum(map(len, responses))
    prompts = [rng.integers(0, BASE["vocab_size"], 5).astype(np.int32) for _ in responses]
    zeros = np.zeros(total, np.float32)
    made = pack.Sequences(prompts, responses, zeros, np.zeros(total, np.int32), np.arange(4), np.zeros(4, np.int64))
    return pack.pack_sequences(made, range(4))


def own_log_probs(directory, packed, temperature):
    """By the model's own forward pass, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    parts = []
    for begin, end in zip(packed.cu_seqlens, packed.cu_seqlens[1:], strict=False):
        ids = torch.from_numpy(packed.ids_T[begin:end])
        with torch.no_grad():
            logp = torch.log_softmax(model(ids[None]).logits[0, :-1] / temperature, -1)
        parts.append(logp.gather(1, ids[1:, None])[4:, 0])
    return torch.cat(parts)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # GPT-BigCode's own
@pytest.mark.parametrize("name", TRAINED)
def test_a_family_is_trained_published_and_exported_as_the_model_that_it_is(name, tmp_path):
    directory = make_model(name, tmp_path / "model")
    model = policy.load_model(directory, gradient_checkpointing=name in ("llama", "phi", "mixtral"))
    made, packed = policy.Policy(model), row()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with safe_open(directory / "model.safetensors", "pt") as file:
        names = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    for _ in range(3):
        out = made.outputs(packed, 0.7)
        optimizer.zero_grad()
        out.logp_R.mean().neg().backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()
        again = made.outputs(packed, 0.7).logp_R
        torch.testing.assert_close(again, made.outputs(packed, 0.7).logp_R, rtol=0, atol=0)  # no dropout, no jitter
    assert bool(again.mean() > out.logp_R.mean())
    published = publish.checkpoint_tensors(model)
    assert {key: tuple(tensor.shape) for key, tensor in published.items()} == names
    assert set(publish.published_infos(made)) == set(infos_of(published.items()))
    fence = WriteFence(tmp_path / "checkpoints", 0)
    fence.claim()
    publish.export_hf(model, directory, tmp_path / "final", fence)
    torch.testing.assert_close(again.detach(), own_log_probs(tmp_path / "final", packed, 0.7), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_is_not_trained_is_refused_with_a_sentence(name, tmp_path):
    with pytest.raises(DataError) as caught:
        policy.load_model(make_model(name, tmp_path))
    assert FAMILIES[name].refused in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gradient_of_a_windowed_and_capped_model_is_that_of_its_own_forward_pass(tmp_path):
    from transformers import AutoModelForCausalLM

    for name in ("gemma2", "gpt_oss", "deepseek_v3"):
        directory, packed, grads = make_model(name, tmp_path / name), row(), []
        ours = policy.load_model(directory)
        policy.Policy(ours).outputs(packed, 1.0).logp_R.sum().backward()
        theirs = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
        for begin, end in zip(packed.cu_seqlens, packed.cu_seqlens[1:], strict=False):
            ids = torch.from_numpy(packed.ids_T[begin:end])
            logp = torch.log_softmax(theirs(ids[None]).logits[0, :-1], -1)
            logp.gather(1, ids[1:, None])[4:].sum().backward()
        grads = [dict(model.named_parameters()) for model in (ours, theirs)]
        for key, parameter in grads[0].items():
            if parameter.grad is not None:
                wanted = grads[1][key].grad
                torch.testing.assert_close(parameter.grad, wanted, atol=2e-3 * float(wanted.abs().max() + 1), rtol=1e-2)


def test_longrope_trains_up_to_its_original_length_and_no_further(tmp_path):
    from rlsp_async.model import read_model_info

    directory = make_model("phi3-longrope", tmp_path)
    assert read_model_info(directory).context == 64
    made = policy.Policy(policy.load_model(directory))
    ids = np.arange(65, dtype=np.int32)
    with pytest.raises(DataError, match="65 tokens: with longrope, sequences of more than 64 change"):
        publish.make_probe(made, ids)
    publish.make_probe(made, ids[:64])


def test_a_learner_that_left_something_out_would_be_found(tmp_path, monkeypatch):
    """The check itself: without the window, the cap or the scale, log-probs differ by far more than is accepted."""
    from rlsp_async.learning import attention

    for name, field in (("mistral-window", "window"), ("gemma2", "softcap"), ("gpt_oss", "sinks_H")):
        directory, dense = make_model(name, tmp_path / name), attention._dense

        def without(q, k, v, packing, variant, field=field, dense=dense):
            return dense(q, k, v, packing, attention.replace(variant, **{field: None}))

        monkeypatch.setattr(attention, "_dense", without)
        with pytest.raises(DataError, match="differ by up to"):
            policy.load_model(directory)
        monkeypatch.setattr(attention, "_dense", dense)
    monkeypatch.setattr(policy, "logits_head", lambda model: model.get_output_embeddings())
    with pytest.raises(DataError, match="differ by up to"):
        policy.load_model(make_model("granite", tmp_path / "granite"))


def test_windows_that_are_longer_than_the_sequences_tried_are_made_short_for_the_check_only(tmp_path):
    directory = make_model("mistral-window", tmp_path, sliding_window=100)
    model = policy.load_model(directory)
    assert model.config.sliding_window == 100
    assert model.config._attn_implementation == "rlsp_packed"
    assert max(fidelity.LENGTHS) < 100


def test_bfloat16_is_compared_with_room_for_its_rounding(tmp_path):
    assert policy.load_model(make_model("gemma3", tmp_path), "bfloat16").dtype is torch.bfloat16
