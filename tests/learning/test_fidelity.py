"""What cannot be loaded or exported as it is on the disk is refused in one line that names it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlsp_async.errors import DataError
from rlsp_async.learning import policy, publish
from rlsp_async.learning.fence import WriteFence
from tests.learning.small import tiny_config


@pytest.fixture
def model(tmp_path):
    """An untied Llama of two layers with biases."""
    from transformers import LlamaForCausalLM

    config = tiny_config(tied=False)
    config.attention_bias = True
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def with_tensors(model, change):
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return model


def with_config(model, **changes):
    settings = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(settings))
    return model


def without(*names):
    return lambda tensors: {name: t for name, t in tensors.items() if not name.endswith(names)}


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


def refusal(model):
    with pytest.raises(DataError) as caught:
        policy.load_model(model)
    text = str(caught.value)
    assert text.startswith(str(model))
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("lm_head.weight"), "lack tensors of the model: lm_head.weight"),
        (without("1.self_attn.q_proj.bias"), "model.layers.1.self_attn.q_proj.bias"),
        (without("model.norm.weight"), "model.norm.weight"),
        (renamed("model.", "module.model."), "lack tensors"),
        (renamed("q_proj.weight", "q_proj.base_layer.weight"), "q_proj.weight"),
        (lambda t: t | {"model.layers.0.self_attn.extra.weight": torch.ones(2)}, "self_attn.extra.weight"),
        (lambda t: t | {"lm_head.weight": torch.ones(25, 32)}, "lm_head.weight ((25, 32) in the files, (24, 32)"),
    ],
)
def test_tensors_that_are_missing_surplus_or_of_another_shape_are_named(model, change, named):
    assert named in refusal(with_tensors(model, change))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model, value):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        return tensors

    assert "tensor model.layers.1.mlp.up_proj.weight has values that are NaN" in refusal(with_tensors(model, spoil))


def test_a_config_of_another_depth_is_refused(model):
    assert "lack tensors of the model: model.layers.2." in refusal(with_config(model, num_hidden_layers=3))
    assert "tensors that the model does not have: model.layers.1." in refusal(with_config(model, num_hidden_layers=1))


@pytest.mark.parametrize("changes", [{"model_type": "unheard_of"}, {"hidden_act": "unheard_of"}])
def test_an_unknown_architecture_is_one_line(model, changes):
    assert "no causal language model that transformers loads" in refusal(with_config(model, **changes))


def test_old_buffers_and_tied_heads_are_no_reason(model):
    with_tensors(model, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    policy.load_model(model)
    with_tensors(with_config(model, tie_word_embeddings=True), without("lm_head.weight"))
    policy.load_model(model)


def test_the_check_leaves_the_random_state_alone(model):
    before = torch.get_rng_state()
    policy.load_model(model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "generation",
    [
        {"do_sample": False, "temperature": 0.9, "top_p": 0.6},
        {"pad_token_id": -1},
        {"early_stopping": True, "length_penalty": 0.5, "num_beams": 1},
        {"max_new_tokens": 7, "eos_token_id": [2, 5]},
    ],
)
def test_a_generation_config_is_exported_byte_for_byte(model, tmp_path, generation):
    given = json.dumps(generation, indent=3)
    (model / "generation_config.json").write_text(given)
    loaded, fence = policy.load_model(model), WriteFence(tmp_path / "checkpoints", 0)
    fence.claim()
    publish.try_export(loaded, model)
    publish.export_hf(loaded, model, tmp_path / "final", fence)
    assert (tmp_path / "final" / "generation_config.json").read_text() == given
    policy.load_model(tmp_path / "final")


def test_an_export_that_would_fail_is_found_before_training(model, monkeypatch):
    loaded = policy.load_model(model)

    def fails(*_, **__):
        raise ValueError("cannot be saved\nfor two reasons")

    monkeypatch.setattr(type(loaded.config), "save_pretrained", fails)
    with pytest.raises(DataError, match="the trained model could not be exported: cannot be saved$"):
        publish.try_export(loaded, model)


def test_dropout_stays_off_under_gradient_checkpointing(tmp_path):
    from tests.model.families import make_model

    loaded = policy.load_model(make_model("phi", tmp_path), gradient_checkpointing=True)
    ids = torch.arange(9)
    seen = []
    for module in loaded.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda m, *_: seen.append(m.training))
    from rlsp_async.learning.attention import Spans

    spans = Spans.of(torch.tensor([0, 9]).numpy())
    out = policy.run_trunk(loaded.get_decoder(), ids, ids, spans)
    calls = len(seen)
    out.sum().backward()
    assert len(seen) > calls > 0  # recomputed
    assert not any(seen)


def test_a_copy_of_a_model_recomputes_its_own_layers(model):
    import copy

    loaded = policy.load_model(model, gradient_checkpointing=True)
    twin = copy.deepcopy(loaded)
    assert all(layer._gradient_checkpointing_func._layer[0] is layer for layer in twin.model.layers)
    shutil.rmtree(model)
