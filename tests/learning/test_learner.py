"""The learner's promises: each step once, in order, with the same bits after a restart; a model that others load."""

import json
import threading

import msgspec
import numpy as np
import pytest
import torch

from rlsp_async.columns import floats, ints, pack_floats, pack_ints
from rlsp_async.errors import ConfigError, ContentError, FencedError, MachineError, MessageError
from rlsp_async.learning import checkpoint, publish, update
from rlsp_async.learning.learner import Learner, deciding_settings
from rlsp_async.messages import Batch, Sampling, StepReport, TrainJob
from rlsp_async.weights.file import FileTransport
from tests.learning.small import Shelf, digest, job, jobs, rolled, run_config

PPO = {"name": "ppo", "options": {"critic": "head"}}
SEPARATE = {"name": "ppo", "preset": "rlsp_released"}
GRPO = {"name": "grpo"}
T1 = {"name": "t1", "options": {"kl_coef": 0.1, "entropy_coef": 0.01, "reference_ema": 0.3}}
STREAMS = {"name": "rlsp_streams", "options": {"critic": "head", "bound": 0.5}}


def weights(learner):
    return digest({n: p.detach() for n, p in learner.policy.policy_parameters()})


def learner(tmp_path, model_dir, algorithm=PPO, shelf=None, **stage):
    cfg = run_config(tmp_path, algorithm, **stage)
    return Learner(cfg, model_dir, cfg.directory, shelf or Shelf())


@pytest.mark.parametrize("algorithm", [PPO, SEPARATE, GRPO, STREAMS, T1])
def test_a_restart_in_mid_stage_ends_with_the_same_bits(tmp_path, model_dir, algorithm):
    straight = learner(tmp_path / "a", model_dir, algorithm)
    for each in jobs():
        straight.train(each)
    first = learner(tmp_path / "b", model_dir, algorithm)
    for each in jobs()[:5]:
        first.train(each)
    second = learner(tmp_path / "b", model_dir, algorithm)
    assert second.step == 4
    reports = [second.train(each) for each in jobs()[4:]]
    assert weights(second) == weights(straight)
    assert reports[-1].weights.digest == straight.train(jobs()[-1]).weights.digest


def test_a_killed_learner_that_repeats_a_whole_stage_start_ends_with_the_same_bits(tmp_path, model_dir):
    straight = learner(tmp_path / "a", model_dir)
    first = learner(tmp_path / "b", model_dir)
    for each in jobs()[:3]:
        straight.train(each)
        first.train(each)
    second = learner(tmp_path / "b", model_dir)
    assert second.step == 2
    second.train(jobs()[2])
    assert weights(second) == weights(straight)


def test_a_repeat_is_answered_and_not_trained(tmp_path, model_dir):
    made = learner(tmp_path, model_dir)
    report = made.train(jobs()[0])
    before = weights(made)
    assert made.train(jobs()[0]) == report
    assert weights(made) == before
    assert made.step == 1


def test_a_repeat_after_a_restart_publishes_the_same_weights_again(tmp_path, model_dir):
    first, shelf = learner(tmp_path, model_dir), Shelf()
    reports = [first.train(each) for each in jobs()]
    second = learner(tmp_path, model_dir, shelf=shelf)
    assert second.train(jobs()[-1]) == reports[-1]
    assert list(shelf.published) == [6]


@pytest.mark.parametrize("shelf_is_full", [True, False])
def test_a_repeat_that_published_nothing_publishes_when_nothing_is_left(tmp_path, model_dir, shelf_is_full):
    """It does so after a reboot between two published versions, and not after a restart of the process alone."""
    first, shelf = learner(tmp_path, model_dir, publish_every=4), Shelf()
    reports = [first.train(each) for each in jobs()[:4]]
    assert reports[-1].weights is None
    if shelf_is_full:
        shelf.published[2] = {}
    again = learner(tmp_path, model_dir, shelf=shelf, publish_every=4).train(jobs()[3])
    assert (again.weights is None, 4 in shelf.published) == (shelf_is_full, not shelf_is_full)
    assert again.checkpoint == 4


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_step_out_of_order_is_refused(tmp_path, model_dir, step):
    with pytest.raises(MessageError, match=f"step {step} cannot follow step 0"):
        learner(tmp_path, model_dir).train(job(step, "sft", 1, "demonstrations"))


def test_an_unknown_stage_is_refused(tmp_path, model_dir):
    with pytest.raises(ConfigError, match="no stage 'rll'"):
        learner(tmp_path, model_dir).train(job(1, "rll", 1))


def test_weights_are_published_by_rhythm_and_at_the_end_of_a_stage(tmp_path, model_dir):
    shelf = Shelf()
    made = learner(tmp_path, model_dir, shelf=shelf)
    published = [made.train(each).weights is not None for each in jobs()]
    assert published == [False, True, True, True, True, True]
    assert list(shelf.published) == [2, 3, 4, 5, 6]
    assert "lm_head.weight" not in shelf.published[6]


def test_the_probe_is_what_the_published_weights_compute(tmp_path, model_dir):
    from transformers import LlamaForCausalLM

    shelf = Shelf()
    made = learner(tmp_path, model_dir, shelf=shelf)
    probe = [made.train(each) for each in jobs()[:2]][-1].weights.probe
    ids, logprobs = ints(probe.ids), floats(probe.logprobs)
    assert (len(ids), len(logprobs)) == (48, 47)
    other = LlamaForCausalLM.from_pretrained(model_dir)
    other.load_state_dict(shelf.published[2], strict=False)
    logp = torch.log_softmax(other(torch.from_numpy(ids.astype(np.int64))[None]).logits[0], -1)
    expected = logp[:-1].gather(1, torch.from_numpy(ids[1:].astype(np.int64))[:, None])[:, 0]
    np.testing.assert_allclose(logprobs, expected.detach().numpy(), atol=1e-5)


def test_the_final_model_is_one_that_transformers_loads(tmp_path, model_dir):
    from transformers import AutoModelForCausalLM

    made = learner(tmp_path, model_dir)
    for each in jobs():
        made.train(each)
    final = made.run_dir / "final"
    loaded = AutoModelForCausalLM.from_pretrained(final)
    assert digest({n: p.detach() for n, p in loaded.named_parameters()}) == weights(made)
    assert json.loads((final / "tokenizer_config.json").read_text()) == {"model_max_length": 64}
    assert not (made.run_dir / ".final.tmp").exists()


def test_the_reference_stays_what_the_stage_began_with(tmp_path, model_dir):
    algorithm = {"name": "ppo", "options": {"kl_coef": 0.1}}
    made = learner(tmp_path, model_dir, algorithm)
    for each in jobs()[:2]:
        made.train(each)
    at_start = weights(made)
    reports = [made.train(each) for each in jobs()[2:4]]
    again = learner(tmp_path, model_dir, algorithm)
    for held in (made, again):
        assert digest({n: p.detach() for n, p in held.reference.policy_parameters()}) == at_start
    assert reports[0].metrics["kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert reports[1].metrics["kl_reference"] > 1e-6


def test_the_reference_that_follows_is_the_average_and_survives_a_restart(tmp_path, model_dir):
    made = learner(tmp_path, model_dir, T1)
    for each in jobs()[:2]:
        made.train(each)
    mean = {n: p.detach().clone() for n, p in made.policy.policy_parameters()}
    for each in jobs()[2:4]:
        made.train(each)
        for name, parameter in made.policy.policy_parameters():
            mean[name] = mean[name] + 0.3 * (parameter.detach() - mean[name])
    held = {n: p.detach() for n, p in made.reference.policy_parameters()}
    torch.testing.assert_close(held, mean)
    again = learner(tmp_path, model_dir, T1)
    assert digest({n: p.detach() for n, p in again.reference.policy_parameters()}) == digest(held)


def test_filtered_rollouts_of_any_temperature_may_be_learnt_at_one(tmp_path, model_dir):
    rng = np.random.default_rng(3)
    groups = [rolled(rng, 3, temperature=0.5), rolled(rng, 4, temperature=1.4)]
    plain = [
        msgspec.structs.replace(g, group=msgspec.structs.replace(g.group, sampling=Sampling(rollouts=4)))
        for g in groups
    ]
    made = {}
    for name, temperature, given in (("drawn", 0.0, groups), ("one", 1.0, groups), ("plain", 0.0, plain)):
        held = learner(
            tmp_path / name,
            model_dir,
            {"name": "filtered", "options": {"temperature": temperature}},
            drop_no_signal=False,
        )
        for each in jobs()[:2]:
            held.train(each)
        held.train(TrainJob(batch=Batch(stage="rl", step=3, groups=given)))
        made[name] = weights(held)
    assert made["one"] == made["plain"] != made["drawn"]


def test_critic_warm_up_leaves_the_policy_alone(tmp_path, model_dir):
    made = learner(tmp_path, model_dir, {"name": "ppo", "options": {"critic_warmup_steps": 1}})
    for each in jobs()[:2]:
        made.train(each)
    before = weights(made)
    made.train(jobs()[2])
    assert weights(made) == before
    made.train(jobs()[3])
    assert weights(made) != before


def test_a_stop_saves_what_no_checkpoint_holds(tmp_path, model_dir):
    made = learner(tmp_path, model_dir)
    made.train(jobs()[0])
    made.on_stop()
    again = learner(tmp_path, model_dir)
    assert again.step == 1
    assert weights(again) == weights(made)


@pytest.mark.parametrize(
    ("module", "breaks"), [(update, "train_batch"), (publish, "export_hf"), (publish, "make_probe")]
)
def test_a_step_that_failed_is_not_saved_at_the_stop(tmp_path, model_dir, monkeypatch, module, breaks):
    """Its weights may be half updated, or not exported: a restart begins at the checkpoint before the step."""
    made = learner(tmp_path, model_dir)
    made.train(jobs()[0])

    def fails(*_):
        raise MachineError("disk full")

    monkeypatch.setattr(module, breaks, fails)
    with pytest.raises(MachineError):
        made.train(jobs()[1])
    made.on_stop()
    assert learner(tmp_path, model_dir).step == 0


class Gate:
    """Holds back what is written beside training until it is opened."""

    def __init__(self, monkeypatch, module, name):
        self.inside, self._open, written = threading.Event(), threading.Event(), getattr(module, name)
        self.num = 0

        def waits(*arguments):
            self.num += 1
            self.inside.set()
            assert self._open.wait(30)
            return written(*arguments)

        monkeypatch.setattr(module, name, waits)

    def open(self):
        self._open.set()


def test_a_report_and_the_next_steps_do_not_wait_for_a_checkpoint(tmp_path, model_dir, monkeypatch):
    made = learner(tmp_path, model_dir)
    for each in jobs()[:3]:
        made.train(each)
    gate = Gate(monkeypatch, checkpoint, "save")
    report = made.begin(jobs()[3]).result(30)
    assert (report.step, report.weights.version, report.checkpoint) == (4, 4, 2)
    assert gate.inside.wait(30)
    assert made.begin(jobs()[4]).result(30).checkpoint == 2
    assert learner(tmp_path, model_dir).step == 2, "killed now, it would begin here"
    assert checkpoint.list_complete(made.run_dir / "checkpoints")[0].name == "step-00000002"
    gate.open()
    made.settle()
    assert learner(tmp_path, model_dir).step == 4
    assert made.begin(jobs()[5]).result(30).checkpoint == 6


def test_the_last_report_of_a_stage_waits_for_its_export_and_its_checkpoint(tmp_path, model_dir, monkeypatch):
    made = learner(tmp_path, model_dir)
    made.train(jobs()[0])
    gate = Gate(monkeypatch, publish, "export_hf")
    report = made.begin(jobs()[1])
    assert gate.inside.wait(30)
    assert not report.done()
    assert made.begin(jobs()[1]) is report, "a repeat waits for the same"
    gate.open()
    assert report.result(30).checkpoint == 2
    assert (made.run_dir / "stages" / "sft" / "model.safetensors").exists()


def test_what_is_published_beside_training_are_the_weights_of_its_step(tmp_path, model_dir, monkeypatch):
    shelf = Shelf()
    made = learner(tmp_path, model_dir, shelf=shelf)
    for each in jobs()[:2]:
        made.train(each)
    gate = Gate(monkeypatch, shelf, "publish")
    report = made.begin(jobs()[2])
    then = weights(made)
    made.begin(jobs()[3])
    assert weights(made) != then
    assert not report.done()
    gate.open()
    made.settle()
    named = dict(made.policy.policy_parameters())
    assert set(shelf.published[3]) == set(named)
    assert digest(shelf.published[3]) == then != digest(shelf.published[4])


def test_a_checkpoint_that_fails_beside_training_ends_the_learner_and_nothing_is_saved_after_it(
    tmp_path, model_dir, monkeypatch
):
    made = learner(tmp_path, model_dir)
    for each in jobs()[:3]:
        made.train(each)

    def fails(*_):
        raise MachineError("disk full")

    monkeypatch.setattr(checkpoint, "save", fails)
    assert made.begin(jobs()[3]).result(30).step == 4
    with pytest.raises(MachineError, match="disk full"):
        made.failed.result(30)
    with pytest.raises(MachineError, match="disk full"):
        made.begin(jobs()[4])
    monkeypatch.undo()
    made.on_stop()
    assert learner(tmp_path, model_dir).step == 2


def test_the_first_version_finds_its_pages_there(tmp_path, model_dir):
    cfg = run_config(tmp_path)
    made = Learner(cfg, model_dir, cfg.directory, FileTransport(tmp_path / "weights"))
    made.train(jobs()[0])
    spare = made._transport._spare
    assert made.train(jobs()[1]).weights is not None
    assert made._transport._published[tmp_path / "weights" / "v000002-0.safetensors"].buffer is spare


def test_a_stop_waits_for_what_is_being_written(tmp_path, model_dir, monkeypatch):
    made = learner(tmp_path, model_dir)
    for each in jobs()[:3]:
        made.train(each)
    gate = Gate(monkeypatch, checkpoint, "save")
    made.begin(jobs()[3])
    assert gate.inside.wait(30)
    stopping = threading.Thread(target=made.on_stop)
    stopping.start()
    assert checkpoint.list_complete(made.run_dir / "checkpoints")[0].name == "step-00000002"
    gate.open()
    stopping.join(30)
    assert checkpoint.list_complete(made.run_dir / "checkpoints")[0].name == "step-00000004"
    assert gate.num == 1, "it is not saved twice"


def test_reports_survive_the_wire_and_carry_figures(tmp_path, model_dir):
    made = learner(tmp_path, model_dir)
    reports = [made.train(each) for each in jobs()[:3]]
    report = msgspec.msgpack.decode(msgspec.msgpack.encode(reports[-1]), type=StepReport)
    assert report.checkpoint == 2
    assert {"reward", "seconds", "tokens_per_s", "alpha", "part_correct"} <= set(report.metrics)
    assert all(isinstance(v, float) and np.isfinite(v) for v in report.metrics.values())
    assert made.metrics()["steps"] == 3.0
    assert made.metrics()["steps"] == 0.0


def test_a_checkpoint_of_other_settings_is_refused_and_they_are_named(tmp_path, model_dir):
    made = learner(tmp_path, model_dir)
    for each in jobs()[:2]:
        made.train(each)
    changed = run_config(tmp_path, PPO, steps=9, target_lag=2)
    with pytest.raises(ConfigError) as caught:
        Learner(changed, model_dir, changed.directory, Shelf())
    assert "checkpoint of step 2 was made with other settings" in str(caught.value)
    assert "stages.rl.steps was 4 and is 9 now; stages.rl.target_lag was 1 and is 2 now; go back" in str(caught.value)
    faster = msgspec.structs.replace(made.cfg, learner=msgspec.structs.replace(made.cfg.learner, checkpoint_every=5))
    assert Learner(faster, model_dir, made.cfg.directory, Shelf()).step == 2


def test_what_decides_the_weights_is_the_same_elsewhere(tmp_path):
    assert (
        deciding_settings(run_config(tmp_path))
        == deciding_settings(run_config(tmp_path / "x"))
        != deciding_settings(run_config(tmp_path, steps=9))
    )


def test_an_older_start_writes_nothing_more(tmp_path, model_dir):
    cfg = run_config(tmp_path)
    shelf = Shelf()
    older = Learner(cfg, model_dir, cfg.directory, shelf, incarnation=5)
    older.train(jobs()[0])
    newer = Learner(cfg, model_dir, cfg.directory, Shelf(), incarnation=6)
    newer.train(jobs()[0])
    with pytest.raises(FencedError, match="a newer start of the learner .6. has taken over this run; this one .5."):
        older.train(jobs()[1])
    older.on_stop()
    assert [p.name for p in (cfg.directory / "checkpoints").glob("step-*")] == []
    assert shelf.published == {}
    assert not (cfg.directory / "stages" / "sft").exists()
    report = newer.train(jobs()[1])
    assert (report.incarnation, report.checkpoint) == (6, 2)
    with pytest.raises(FencedError):
        Learner(cfg, model_dir, cfg.directory, Shelf(), incarnation=5)


@pytest.mark.parametrize(
    "poison",
    [
        {"prompt_ids": b"abc"},
        {"prompt_ids": pack_ints([2**30])},
        {"token_ids": pack_ints([2**30] * 3)},
        {"logprobs": pack_floats([-3e38] * 3)},
        {"step_offsets": b"a"},
    ],
)
def test_a_batch_with_a_poisoned_group_is_refused_by_name_and_goes_on_without_it(tmp_path, model_dir, poison):
    made, given = learner(tmp_path, model_dir), job(1, "rl", 1)
    bad = given.batch.groups[0].group
    if "prompt_ids" in poison:
        bad = msgspec.structs.replace(bad, **poison)
    else:
        three = {"token_ids": pack_ints([5] * 3), "logprobs": pack_floats([-1.0] * 3), "versions": pack_ints([0] * 3)}
        bad.rollouts[0] = msgspec.structs.replace(bad.rollouts[0], **{**three, **poison})
    given.batch.groups[0] = msgspec.structs.replace(given.batch.groups[0], group=bad)
    for _ in range(2):
        with pytest.raises(ContentError, match=f"group {bad.group_id}") as refused:
            made.train(given)
        assert refused.value.groups == [bad.group_id]
    assert made.step == 0
    rest = msgspec.structs.replace(given.batch, groups=given.batch.groups[1:])
    assert made.train(TrainJob(batch=rest)).step == 1
    before = weights(made)
    empty = msgspec.structs.replace(rest, step=2, stage_step=2, groups=[])
    assert made.train(TrainJob(batch=empty)).metrics["tokens"] == 0
    assert weights(made) == before


def test_prompt_ids_that_are_not_those_of_the_prompt_name_their_group(tmp_path, model_dir):
    cfg, given = run_config(tmp_path, PPO), job(1, "rl", 1)
    groups = [verified.group for verified in given.batch.groups]
    known = {group.prompt.prompt_id: ints(group.prompt_ids).tolist() for group in groups}
    known[groups[2].prompt.prompt_id] = [3, 3, 3]
    made = Learner(cfg, model_dir, cfg.directory, Shelf(), encode=lambda prompt: known[prompt.prompt_id])
    with pytest.raises(ContentError, match="are not those of prompt") as refused:
        made.train(given)
    assert refused.value.groups == [groups[2].group_id]


def truncated(each, which, token=None):
    """The job with these rollouts of each group cut at the longest length; `token`: they consist of this one."""

    def cut(rollout):
        ids = ints(rollout.token_ids) if token is None else np.full(len(ints(rollout.token_ids)), token)
        return msgspec.structs.replace(rollout, finish="length", token_ids=pack_ints(ids))

    groups = []
    for verified in each.batch.groups:
        rollouts = [cut(r) if r.index in which else r for r in verified.group.rollouts]
        groups.append(
            msgspec.structs.replace(verified, group=msgspec.structs.replace(verified.group, rollouts=rollouts))
        )
    return TrainJob(batch=msgspec.structs.replace(each.batch, groups=groups))


@pytest.mark.parametrize("name", ["grpo", "ppo", "reinforce"])
def test_truncated_rollouts_stay_out_of_the_loss_when_they_are_masked(tmp_path, model_dir, name):
    figures = {}
    for masked in (True, False):
        for token in (None, 9):
            algorithm = {"name": name, "options": {"mask_truncated": masked}}
            made = learner(tmp_path / f"{masked}{token}", model_dir, algorithm, minibatches=1)
            for each in jobs()[:2]:
                made.train(each)
            metrics = made.train(truncated(jobs()[2], {1, 3}, token)).metrics
            figures[masked, token] = [metrics[key] for key in ("loss", "grad_norm", "reward")]
    assert figures[True, None] == pytest.approx(figures[True, 9], rel=1e-4, abs=1e-6)
    assert figures[False, None] != pytest.approx(figures[False, 9], rel=1e-3, abs=1e-6)
    assert figures[True, None][1] != pytest.approx(figures[False, None][1], rel=1e-3)


def test_a_batch_of_truncated_rollouts_alone_moves_nothing_when_they_are_masked(tmp_path, model_dir):
    made = learner(tmp_path, model_dir, {"name": "grpo", "options": {"mask_truncated": True}}, minibatches=1)
    for each in jobs()[:2]:
        made.train(each)
    metrics = made.train(truncated(jobs()[2], {0, 1, 2, 3})).metrics
    assert (metrics["grad_norm"], metrics["masked_fraction"]) == (0.0, 1.0)
