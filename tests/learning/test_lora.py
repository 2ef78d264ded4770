"""Adapters: their gradients, what is trained and published, the reference, checkpoints, and the exported sum."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.learning import export, lora, policy, publish, stage
from rlsp_async.learning.learner import Learner
from rlsp_async.model import adapter
from tests.learning.small import Shelf, digest, job, jobs, run_config
from tests.learning.test_policy import batch

LORA = {"rank": 3, "alpha": 6.0}
WITH_REFERENCE = {"name": "grpo", "options": {"kl_coef": 0.1}}
Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def adapted(model_dir, dtype="float32", seed=3, checkpointing=False, **options):
    model = policy.load_model(model_dir, dtype, gradient_checkpointing=checkpointing)
    lora.add_adapters(model, config.LoraConfig(**{**LORA, **options}), seed, str(model_dir))
    return policy.Policy(model)


def scramble(made, size=0.2):
    generator = torch.Generator().manual_seed(1)
    for parameter in made.adapters.values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return made


def learner(tmp_path, model_dir, algorithm=None, shelf=None, **stage):
    table = msgspec.to_builtins(run_config(tmp_path, algorithm, **stage))
    table["model"]["lora"] = LORA
    cfg = config.convert(table, config.RunConfig, "test")
    return Learner(cfg, model_dir, cfg.directory, shelf or Shelf())


def test_new_adapters_change_nothing_and_leave_torchs_random_numbers_alone(model_dir):
    row, plain = batch(), policy.Policy(policy.load_model(model_dir))
    torch.manual_seed(5)
    made = adapted(model_dir)
    drawn = torch.rand(1).item()
    torch.manual_seed(5)
    assert torch.rand(1).item() == drawn
    assert torch.equal(made.outputs(row, 1.0).logp_R, plain.outputs(row, 1.0).logp_R)
    again, other = adapted(model_dir), adapted(model_dir, seed=4)
    a = Q0.format("A")
    assert torch.equal(made.adapters[a], again.adapters[a]) and not torch.equal(made.adapters[a], other.adapters[a])
    assert made.adapters[a].shape == (3, 32) and not made.adapters[Q0.format("B")].any()
    assert 0.1 < float(made.adapters[a].detach().abs().max()) <= 32**-0.5
    assert len(made.adapters) == 2 * 2 * 7


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_sum_of_weight_and_product(model_dir, checkpointing):
    """dL/dA = s B^T G and dL/dB = s G A^T, where G is the gradient of a plain model whose weights are W + s B A."""
    made, row = scramble(adapted(model_dir, checkpointing=checkpointing)), batch()
    plain = policy.Policy(policy.load_model(model_dir))
    scale = 6.0 / 3
    pairs = {n.removeprefix("base_model.model.").partition(".lora_")[0] for n in made.adapters}
    factors = {n: [made.adapters[f"base_model.model.{n}.lora_{x}.weight"] for x in "AB"] for n in pairs}
    weights = {n: plain.model.get_submodule(n).weight for n in pairs}
    for name, (a, b) in factors.items():
        weights[name].data += scale * (b @ a).detach()
    for each in (made, plain):
        out = each.outputs(row, 0.9)
        (out.logp_R * torch.arange(1, len(out.logp_R) + 1)).sum().backward()
    for name, (a, b) in factors.items():
        grad = weights[name].grad
        torch.testing.assert_close(a.grad, scale * b.detach().T @ grad, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(b.grad, scale * grad @ a.detach().T, atol=2e-4, rtol=1e-4)
    others = [p for n, p in made.model.named_parameters() if ".lora_" not in n]
    assert others and all(p.grad is None and not p.requires_grad for p in others)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_model_has_the_sum_in_float32_and_is_given_back(model_dir, dtype):
    made = scramble(adapted(model_dir, dtype))
    layer = made.model.model.layers[0].self_attn.q_proj
    before, names = layer.base_layer.weight.data.clone(), list(dict(made.model.named_parameters()))
    row = batch()
    expected = made.outputs(row, 1.0).logp_R.detach()
    a, b = (made.adapters[Q0.format(x)].detach() for x in "AB")
    with lora.merged(made.model):
        assert "model.layers.0.self_attn.q_proj.weight" in dict(made.model.named_parameters())
        whole = made.model.model.layers[0].self_attn.q_proj.weight
        assert torch.equal(whole, (before.float() + 2.0 * b @ a).to(whole.dtype))
        if dtype == "float32":
            torch.testing.assert_close(policy.Policy(made.model).outputs(row, 1.0).logp_R, expected)
    assert torch.equal(layer.base_layer.weight, before) and list(dict(made.model.named_parameters())) == names
    assert all(p.dtype == torch.float32 for p in made.adapters.values())


def test_targets_are_refused_by_a_sentence_that_names_those_that_are_there(model_dir):
    assert len(adapted(model_dir, targets=["q_proj", "v_proj"]).adapters) == 2 * 2 * 2
    with pytest.raises(ConfigError, match=r"no linear layer lm_head, q_prj; there is down_proj, gate_proj, k_proj"):
        adapted(model_dir, targets=["q_prj", "lm_head"])


def test_the_learner_publishes_adapters_alone_and_a_restart_ends_with_the_same_bits(tmp_path, model_dir):
    shelf = Shelf()
    straight = learner(tmp_path / "a", model_dir, WITH_REFERENCE, shelf)
    base = {n: p.detach().clone() for n, p in straight.policy.model.named_parameters() if ".lora_" not in n}
    for each in jobs():
        straight.train(each)
    assert sorted(shelf.published[3]) == sorted(straight.policy.adapters)
    assert digest(shelf.published[3]) != digest(shelf.published[4])
    assert all(torch.equal(p, base[n]) for n, p in straight.policy.model.named_parameters() if ".lora_" not in n)
    first = learner(tmp_path / "b", model_dir, WITH_REFERENCE)
    for each in jobs()[:5]:
        first.train(each)
    second = learner(tmp_path / "b", model_dir, WITH_REFERENCE)
    assert second.step == 4
    for each in jobs()[4:]:
        second.train(each)
    ends = [digest(publish.published_tensors(made.policy)) for made in (straight, second)]
    assert ends[0] == ends[1] and ends[0] != digest(shelf.published[3])
    saved = load_file(tmp_path / "b" / "t" / "checkpoints" / "step-00000004" / "tensors.safetensors")
    assert {n for n in saved if n.startswith("model/")} == {f"model/{n}" for n in straight.policy.adapters}
    assert sum(t.numel() for t in saved.values()) < sum(p.numel() for p in base.values())


def test_the_reference_is_the_same_model_with_the_adapters_of_the_beginning_of_the_stage(tmp_path, model_dir):
    made, row = learner(tmp_path, model_dir, WITH_REFERENCE), batch()
    for each in jobs()[:2]:
        made.train(each)
    start = made.policy.outputs(row, 1.0).logp_R.detach()
    for each in jobs()[2:4]:
        made.train(each)
    now = made.policy.outputs(row, 1.0).logp_R.detach()
    assert made.reference.model is made.policy.model
    assert torch.equal(made.reference.outputs(row, 1.0).logp_R, start) and not torch.equal(start, now)
    assert torch.equal(made.policy.outputs(row, 1.0).logp_R, now)


@pytest.mark.parametrize(
    ("algorithm", "sentence"),
    [
        ({"name": "ppo", "options": {"critic": "separate"}}, r'stages\.rl\.algorithm: critic = "separate"'),
        ({"name": "grpo", "options": {"kl_coef": 0.1, "reference_ema": 0.2}}, r"stages\.rl\.algorithm: reference_ema"),
    ],
)
def test_what_needs_a_copy_of_the_weights_is_refused(tmp_path, model_dir, algorithm, sentence):
    made = learner(tmp_path, model_dir, algorithm)
    for each in jobs()[:2]:
        made.train(each)
    with pytest.raises(ConfigError, match=sentence):
        made.train(jobs()[2])


def test_a_head_critic_and_muon_train_beside_adapters(tmp_path, model_dir):
    ppo = {"name": "ppo", "options": {"critic": "head"}}
    made = learner(tmp_path, model_dir, ppo, optimizer={"name": "muon", "lr": 1e-3, "muon_lr": 1e-2})
    for each in jobs()[:4]:
        made.train(each)
    assert made.policy.value_head.weight.any()
    assert all(p.detach().isfinite().all() and p.any() for p in made.policy.adapters.values())


def test_a_stage_that_starts_from_the_base_has_the_adapters_of_that_time(tmp_path, model_dir):
    table = msgspec.to_builtins(run_config(tmp_path, WITH_REFERENCE))
    table["model"]["lora"] = LORA
    table["stages"] = {"rl": table["stages"]["rl"], "again": {**table["stages"]["rl"], "start": "base"}}
    cfg = config.convert(table, config.RunConfig, "test")
    made = Learner(cfg, model_dir, cfg.directory, Shelf())
    for step in (1, 2, 3, 4):
        made.train(job(step, "rl", step, last=step == 4))
    assert made.policy.adapters[Q0.format("B")].any()
    stage.begin_stage(made.cfg, "again", made.policy, made.run_dir)
    assert not made.policy.adapters[Q0.format("B")].any()


def test_the_last_step_leaves_the_sum_and_the_adapter_and_so_does_export_model(tmp_path, model_dir):
    import peft
    from transformers import AutoModelForCausalLM

    made, row = learner(tmp_path, model_dir, WITH_REFERENCE), batch()
    (made.run_dir / "model").symlink_to(model_dir)
    (made.run_dir / "config.toml").write_text(config.to_toml(made.cfg))
    for each in jobs():
        made.train(each)
    expected = made.policy.outputs(row, 1.0).logp_R.detach()
    exported = export.export_model(made.run_dir, out=tmp_path / "out")
    for directory in (made.run_dir / "final", exported):
        whole = policy.Policy(policy.load_model(directory)).outputs(row, 1.0).logp_R
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
        written = json.loads((directory / "adapter" / "adapter_config.json").read_text())
        assert (written["r"], written["lora_alpha"]) == (3, 6) and "q_proj" in written["target_modules"]
        ids = torch.from_numpy(row.ids_T[: row.cu_seqlens[1]].astype(np.int64))[None]
        with torch.no_grad():
            logits = [
                peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), directory / "adapter")(
                    ids
                ).logits,
                AutoModelForCausalLM.from_pretrained(directory)(ids).logits,
            ]
        torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)
    left = export.export_model(made.run_dir, stage="sft", out=tmp_path / "sft")
    assert (left / "adapter" / "adapter_model.safetensors").is_file()


def test_adapters_of_another_base_are_refused(tmp_path, model_dir):
    mine = shutil.copytree(model_dir, tmp_path / "model")
    made = learner(tmp_path, mine, WITH_REFERENCE)
    for each in jobs()[:2]:
        made.train(each)
    model = policy.load_model(mine)
    model.get_input_embeddings().weight.data[0] += 1
    model.save_pretrained(mine)
    with pytest.raises(DataError, match=r"model\.safetensors of .*model has other bytes"):
        learner(tmp_path, mine, WITH_REFERENCE)


def test_published_tensors_of_a_plain_policy_are_all_weights(model_dir):
    assert len(publish.published_tensors(policy.Policy(policy.load_model(model_dir)))) == 2 * 9 + 2


def test_an_adapters_directory_names_its_base_and_what_is_not_computed_here(tmp_path, model_dir):
    made = adapted(model_dir, targets=["v_proj", "q_proj"])
    lora.write_adapter(tmp_path / "a", made.adapters, config.LoraConfig(**LORA), model_dir)
    assert adapter.is_adapter(tmp_path / "a") and not adapter.is_adapter(model_dir)
    assert adapter.read_adapter(tmp_path / "a") == (
        model_dir,
        config.LoraConfig(rank=3, alpha=6.0, targets=["q_proj", "v_proj"]),
    )
    path = tmp_path / "a" / "adapter_config.json"
    whole = json.loads(path.read_text())
    for changes, sentence in (
        ({"use_dora": True}, "use_dora is not computed here"),
        ({"bias": "all"}, "bias is not computed here"),
        ({"base_model_name_or_path": "somebody/model"}, "base_model_name_or_path is 'somebody/model', and no model"),
        ({"r": 0}, r"rank = 0: must be a whole number at least 1"),
    ):
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(DataError, match=sentence):
            adapter.read_adapter(tmp_path / "a")
