"""What an environment said is context: no algorithm's gradient and no metric depends on what its columns hold."""

import copy

import msgspec
import numpy as np
import pytest
import torch

from rlsp_async import config
from rlsp_async.algos.base import Terms
from rlsp_async.columns import ints, pack_floats, pack_ints
from rlsp_async.errors import MessageError
from rlsp_async.learning import optim, pack, reward, rows, update
from rlsp_async.learning.policy import ForwardOutputs, Policy, load_model
from rlsp_async.messages import Batch
from tests.algos.test_contract import MODULES, PRESETS, options
from tests.learning.small import VOCABULARY, demonstration, job, rolled

OBSERVATION = 5


def with_observation(verified, ids, logprob=0.0, version=-1):
    """Puts an observation before the last token of each rollout, which becomes a turn of its own."""
    rollouts = []
    for rollout in verified.group.rollouts:
        column, num = ints(rollout.token_ids), len(ids)
        at = len(column) - 1
        own = 0 if verified.group.provenance == "demonstration" else ints(rollout.versions)
        logprobs = np.frombuffer(rollout.logprobs, dtype="<f4")
        versions = np.zeros(len(column), dtype=np.int32) + own
        rollouts.append(
            msgspec.structs.replace(
                rollout,
                token_ids=pack_ints(np.insert(column, [at] * num, ids)),
                logprobs=pack_floats(np.insert(logprobs, [at] * num, logprob)),
                versions=pack_ints(np.insert(versions, [at] * num, version)),
                turns=pack_ints([0, at + num]),
                ended="done",
            )
        )
    return msgspec.structs.replace(verified, group=msgspec.structs.replace(verified.group, rollouts=rollouts))


def batch(groups):
    return Batch(stage="rl", step=3, groups=groups)


class ContextFree(Policy):
    """A policy whose outputs depend on the response token alone, so that what it has read changes none of them."""

    def outputs(self, packed, temperature, request=update.ForwardRequest()):  # noqa: B008
        target_R = torch.from_numpy(packed.target_R)
        hidden_RE = self.model.get_input_embeddings()(target_R)
        logp_R, entropy_R, mean_R, energy_R = self._log_probs(hidden_RE, target_R, temperature, request)
        values_R = self.value_head(hidden_RE).squeeze(-1) if request.values and self.value_head is not None else None
        return ForwardOutputs(
            logp_R, entropy_R, values_R, mean_R if request.mean else None, energy_R if request.energy else None
        )


@pytest.fixture(scope="module")
def model(model_dir):
    return load_model(model_dir)


def trained(model, name, preset, groups):
    """Metrics of a step with two updates, and the parameters behind it."""
    torch.manual_seed(0)
    module, cfg = MODULES[name], options(name, preset)
    policy = ContextFree(copy.deepcopy(model), cfg.critic, cfg.num_values())
    reference = ContextFree(copy.deepcopy(model)) if "reference" in module.needs(cfg) else None
    context = update.UpdateContext(
        module, cfg, policy, optim.Updater(config.OptimizerConfig(lr=1e-3), policy, 0.0, 8), reference
    )
    read = rows.read_rows(batch(groups))
    made, terms, figures = reward.compute_reward(
        read, config.RewardConfig(explore="novelty", penalties=["repetition", "garbled"]), cfg, 1, 4, 64
    )
    terms = terms or Terms(torch.from_numpy(read.parts["correct"]).float(), torch.zeros(len(made)), 1.0)
    schedule = update.UpdateSchedule(1, 2, 4096, 1.0, (0, 3), where="stage 'rl', step 3")
    metrics = update.train_batch(context, read.sequences, torch.from_numpy(made).float(), schedule, terms)
    return metrics | figures, {n: p.detach().clone() for n, p in policy.named_parameters()}


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_what_an_observation_holds_changes_no_gradient_and_no_metric(model, name, preset):
    groups = [rolled(np.random.default_rng(5), n) for n in range(3)]
    plain, plain_parameters = trained(model, name, preset, groups)
    for ids, logprob in (([9] * 40, float("nan")), ([7], -3e38)):
        seen = [with_observation(group, ids, logprob) for group in groups]
        metrics, parameters = trained(model, name, preset, seen)
        # The number of tokens that went through the model is the one figure that observations are part of.
        num_more = metrics.pop("tokens") - plain["tokens"]
        assert num_more == pytest.approx(len(ids) * 12 * plain["kept_fraction"] * (plain["updates"] > 0))
        assert metrics == {name: plain[name] for name in metrics} and len(metrics) == len(plain) - 1
        for parameter in parameters:
            assert torch.equal(parameters[parameter], plain_parameters[parameter]), parameter


def test_the_model_reads_what_is_observed_and_is_trained_on_its_own_tokens_alone(model_dir):
    from transformers import LlamaForCausalLM

    group = with_observation(rolled(np.random.default_rng(1), 1, size=2), [11, 12, 13])
    made = rows.read_rows(batch([group])).sequences
    policy = Policy(load_model(model_dir))
    plain = LlamaForCausalLM.from_pretrained(model_dir)
    packed = pack.pack_sequences(made, [1, 0])
    logp_R = policy.outputs(packed, 1.0).logp_R
    expected = []
    for number in (1, 0):
        ids = torch.tensor([*made.prompts[number], *made.responses[number]])
        logp_TV = torch.log_softmax(plain(ids[None]).logits[0], dim=-1)
        rollout = group.group.rollouts[number]
        own = [4 + at for at, version in enumerate(ints(rollout.versions)) if version >= 0]
        expected += [logp_TV[at - 1, ids[at]] for at in own]
    torch.testing.assert_close(logp_R, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert made.length_B.tolist() == [len(r.token_ids) // 4 - 3 for r in group.group.rollouts]


def test_the_gradient_of_an_observations_own_log_probs_is_zero(model_dir):
    """The loss is a function of the logits before the rollouts' own tokens, and of no others."""
    group = with_observation(rolled(np.random.default_rng(1), 1, size=1), [11, 12, 13])
    made = rows.read_rows(batch([group])).sequences
    policy = Policy(load_model(model_dir))
    packed = pack.pack_sequences(made, [0])
    seen = {}
    policy.model.get_decoder().register_forward_hook(
        lambda module, given, out: (out.last_hidden_state.retain_grad(), seen.update(hidden=out.last_hidden_state))[0]
    )
    policy.outputs(packed, 1.0).logp_R.sum().backward()
    moved_T = seen["hidden"].grad[0].abs().sum(-1) > 0
    length = len(made.responses[0])
    first = length - 1 - 3  # the observation stands before the last token
    # An output predicts the next token: those that predict the observation's tokens have no part in the loss.
    expected = [False] * 3 + [True] * first + [False] * 3 + [True, False]
    assert moved_T.tolist() == expected


def test_a_demonstration_is_imitated_whole_unless_it_says_what_was_observed():
    plain = demonstration(np.random.default_rng(2), 1)
    num = len(plain.group.rollouts[0].token_ids) // 4
    assert rows.read_rows(batch([plain])).sequences.length_B.tolist() == [num]
    made = rows.read_rows(batch([with_observation(plain, [5, 5])])).sequences
    assert made.length_B.tolist() == [num]
    assert made.versions_N.tolist() == [-1] * num  # no lag and no correction for what no policy sampled
    assert len(made.responses[0]) == num + 2


def test_a_batch_that_holds_only_observations_has_no_token():
    group = with_observation(rolled(np.random.default_rng(2), 1, size=1), [5])
    rollout = group.group.rollouts[0]
    num = len(rollout.token_ids) // 4
    blank = msgspec.structs.replace(rollout, versions=pack_ints([-1] * num))
    nothing = msgspec.structs.replace(group, group=msgspec.structs.replace(group.group, rollouts=[blank]))
    with pytest.raises(MessageError, match="no token to train on"):
        rows.read_rows(batch([nothing]))


def test_truncated_rollouts_are_masked_by_their_own_tokens():
    group = with_observation(rolled(np.random.default_rng(2), 1, size=2), [5, 6])
    cut = msgspec.structs.replace(group.group.rollouts[0], finish="length")
    cut_group = msgspec.structs.replace(group.group, rollouts=[cut, group.group.rollouts[1]])
    read = rows.without_truncated(rows.read_rows(batch([msgspec.structs.replace(group, group=cut_group)])))
    lengths = read.sequences.length_B
    assert np.isnan(read.sequences.behaviour_N).tolist() == [True] * lengths[0] + [False] * lengths[1]


def test_small_batches_have_no_observations():
    assert rows.read_rows(job(1, "rl", 1).batch).sequences.at is None
    assert VOCABULARY > 13
