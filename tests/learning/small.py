"""Tiny models and hand-made batches for the learner's tests."""

import hashlib

import numpy as np

from rlsp_async import config
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.messages import (
    Batch,
    Prompt,
    Rollout,
    RolloutGroup,
    Sampling,
    TrainJob,
    Verdict,
    VerifiedGroup,
    WeightsRef,
)
from rlsp_async.weights.snapshot import Buffer, Layout, Snapshot, infos_of

VOCABULARY = 24


def tiny_config(kind="llama", tied=True):
    from transformers import LlamaConfig, Qwen2Config

    made = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
    return made(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


class Shelf:
    """A weight transport that keeps what it was given."""

    def __init__(self):
        self.published = {}

    def prepare(self, infos, incarnation=0):
        pass

    def take(self, named_tensors, version, incarnation=0, infos=None):
        named = list(named_tensors)
        layout = Layout(infos_of(named), has_sums=False)
        snapshot = Snapshot(layout, Buffer(layout.num_bytes, None), version, incarnation)
        snapshot.fill(named)
        return snapshot

    def publish(self, snapshot, probe):
        self.published[snapshot.version] = dict(snapshot.tensors())
        return WeightsRef(
            version=snapshot.version,
            uri=f"file:///nowhere/{snapshot.version}",
            digest=digest(self.published[snapshot.version]),
            num_bytes=1,
            probe=probe,
        )

    def close(self):
        pass

    def prune(self, keep, incarnation=None):
        return []

    def versions(self):
        return list(self.published)


def digest(tensors):
    return hashlib.sha256(b"".join(tensors[n].numpy().tobytes() for n in sorted(tensors))).hexdigest()


def demonstration(rng, number):
    length = int(rng.integers(3, 12))
    rollout = Rollout(
        index=0,
        token_ids=pack_ints(rng.integers(3, VOCABULARY, length)),
        logprobs=pack_floats([0.0] * length),
        versions=pack_ints(np.full(length, -1)),
        text="x",
    )
    return VerifiedGroup(group=group(number, rng, [rollout], "demonstration"))


def group(number, rng, rollouts, provenance="rollout", temperature=1.0):
    prompt = Prompt(prompt_id=f"p{number}", task="t", text="q", answer="a")
    return RolloutGroup(
        group_id=number,
        prompt=prompt,
        prompt_ids=pack_ints(rng.integers(3, VOCABULARY, 4)),
        sampling=Sampling(temperature=temperature, rollouts=len(rollouts)),
        rollouts=rollouts,
        provenance=provenance,
    )


def rolled(rng, number, size=4, temperature=1.0):
    rollouts, verdicts = [], []
    for index in range(size):
        length = int(rng.integers(2, 14))
        rollouts.append(
            Rollout(
                index=index,
                token_ids=pack_ints(rng.integers(3, VOCABULARY, length)),
                logprobs=pack_floats(-3.0 + 0.1 * rng.standard_normal(length)),
                versions=pack_ints(np.zeros(length)),
                text="so \\boxed{7}",
            )
        )
        right = float(index == 0 or rng.random() < 0.3)
        verdicts.append(
            Verdict(
                status="correct" if right else "wrong", parts={"correct": right, "search_steps": float(length // 3)}
            )
        )
    return VerifiedGroup(group=group(number, rng, rollouts, temperature=temperature), verdicts=verdicts)


def job(step, stage, stage_step, source="rollouts", last=False, groups=4):
    rng = np.random.default_rng(step)
    make = demonstration if source == "demonstrations" else rolled
    return TrainJob(
        batch=Batch(
            stage=stage,
            step=step,
            stage_step=stage_step,
            last_of_stage=last,
            groups=[make(rng, 100 * step + i) for i in range(groups)],
        )
    )


def run_config(tmp_path, algorithm=None, **stage):
    rl = {
        "steps": 4,
        "minibatches": 2,
        "groups_per_step": 4,
        "optimizer": {"lr": 1e-3},
        "algorithm": algorithm or {"name": "ppo", "options": {"critic": "head"}},
        "reward": {"explore": "steps", "scale": 6.0},
        **stage,
    }
    sft = {
        "source": "demonstrations",
        "steps": 2,
        "groups_per_step": 4,
        "publish_every": 0,
        "algorithm": {"name": "sft"},
        "optimizer": {"name": "muon", "lr": 8e-3, "warmup_steps": 2},
    }
    table = {
        "name": "t",
        "runs_dir": str(tmp_path),
        "stages": {"sft": sft, "rl": rl},
        "learner": {"checkpoint_every": 2, "device": "cpu", "tokens_per_microbatch": 128},
    }
    return config.convert(table, config.RunConfig, "test")


def jobs():
    """Two steps of SFT, four of RL."""
    sft = [job(s, "sft", s, "demonstrations", s == 2) for s in (1, 2)]
    return sft + [job(2 + s, "rl", s, last=s == 4) for s in (1, 2, 3, 4)]
