"""What each GPU of a machine would hold, computed before anything runs, on any machine.

    uses = plan_cards(cfg, shape, {"learner-0": ["0"], "sampler-0": ["1"]}, card_gib=80.0)

A learner that surely does not fit, and a sampler without room for one sequence, are refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.cuda import CONTEXT_SHARE, learner_share
from rlsp_async.errors import ConfigError
from rlsp_async.model import ModelInfo
from rlsp_async.preflight.estimate import GIB, NO_EXTRA_MODELS, TORCH_GIB, ExtraModels, learner_gib
from rlsp_async.report.text import count_text
from rlsp_async.sampling.vllm_settings import card_cache_bytes

UNCERTAIN = 0.85
"""Share of an estimate that is surely needed: estimates of the learner are right within 15 %."""


def _qwen(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, *, tied: bool) -> ModelInfo:
    return ModelInfo(
        kind="qwen2",
        vocabulary=151_936 if tied else 152_064,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=64 if hidden == 896 else 128,
        intermediate=intermediate,
        context=32_768,
        tied=tied,
    )


RELEASED = {
    "Qwen2.5-0.5B": _qwen(896, 24, 14, 2, 4_864, tied=True),
    "Qwen2.5-1.5B": _qwen(1_536, 28, 12, 2, 8_960, tied=True),
    "Qwen2.5-3B": _qwen(2_048, 36, 16, 2, 11_008, tied=True),
    "Qwen2.5-7B": _qwen(3_584, 28, 28, 4, 18_944, tied=False),
    "Qwen2.5-14B": _qwen(5_120, 48, 40, 8, 13_824, tied=False),
    "Qwen2.5-32B": _qwen(5_120, 64, 40, 8, 27_648, tied=False),
}
"""Sizes of released models, for a check on a machine that does not have the model."""


class CardUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one card holds."""

    card: str
    processes: list[str]
    texts: list[str]
    """One line for each thing on it, with its memory."""
    warnings: list[str] = []


def released_shape(path: str) -> tuple[str, ModelInfo] | None:
    """Name and sizes of the released model that a directory is named after, e.g. models/Qwen2.5-7B-Instruct."""
    name = Path(path).name
    return next(
        ((known, shape) for known, shape in RELEASED.items() if name == known or name.startswith(f"{known}-")), None
    )


def plan_cards(
    cfg: RunConfig,
    shape: ModelInfo,
    assigned: Mapping[str, list[str]],
    card_gib: float,
    extra: ExtraModels = NO_EXTRA_MODELS,
) -> list[CardUse]:
    """What every card holds that a process gets.

    Args:
        cfg: the run.
        shape: sizes of its model.
        assigned: the cards of each process.
        card_gib: memory of one card.
        extra: the models that the learner keeps besides the policy.

    Raises:
        ConfigError: the learner does not fit, or a sampler has no room for one sequence.
    """
    cards = dict.fromkeys(card for mine in assigned.values() for card in mine)
    return [
        _use(cfg, shape, card, [name for name, mine in assigned.items() if card in mine], card_gib, extra)
        for card in cards
    ]


def _use(
    cfg: RunConfig, shape: ModelInfo, card: str, processes: list[str], card_gib: float, extra: ExtraModels
) -> CardUse:
    samplers = [name for name in processes if name.startswith("sampler")]
    texts, warnings = [], []
    if len(samplers) < len(processes):
        share = learner_share(len(samplers) * cfg.sampler.memory) if samplers else 1 - CONTEXT_SHARE
        needed, room = learner_gib(cfg, shape, extra) - TORCH_GIB, share * card_gib
        sentence = (
            f"the learner needs about {needed:.1f} GiB of card {card}, and {room:.1f} of its {card_gib:g} are left"
        )
        if UNCERTAIN * needed > room:
            raise ConfigError(f"{sentence}{_cure(cfg, bool(samplers))}")
        warnings += [f"{sentence}: it may run out of memory{_cure(cfg, bool(samplers))}"] if needed > room else []
        texts.append(f"learner {needed:.1f} of {room:.1f} GiB")
    for _ in samplers:
        room_bytes = card_cache_bytes(cfg, shape, int(card_gib * GIB))
        value_bytes = 4 if cfg.model.dtype == "float32" else 2
        each = shape.kv_values_per_token * value_bytes // min(cfg.sampler.tensor_parallel, shape.kv_heads)
        tokens = room_bytes // each
        longest = cfg.sampling.max_new_tokens
        texts.append(
            f"sampler {cfg.sampler.memory * card_gib:.1f} GiB, of them {room_bytes / GIB:.1f} of KV cache: "
            f"{count_text(tokens)} tokens, {tokens // longest} responses of {longest}"
        )
        rows = min(cfg.sampler.max_sequences, cfg.sampler.groups_in_flight * cfg.sampling.rollouts)
        if tokens < rows * longest / 2:
            warnings.append(
                f"the KV cache of card {card} holds {tokens // longest} responses of {longest} tokens, and {rows} are "
                "decoded at once: vLLM will interrupt some; raise sampler.memory or lower sampler.max_sequences"
            )
    return CardUse(card=card, processes=processes, texts=texts, warnings=warnings)


def _cure(cfg: RunConfig, shared: bool) -> str:
    """What to change when the learner does not fit."""
    ways = ["lower learner.tokens_per_microbatch"]
    if not cfg.learner.gradient_checkpointing:
        ways.insert(0, "set learner.gradient_checkpointing = true")
    if shared:
        ways.append("lower sampler.memory")
    return f"; {', '.join(ways)}, or take a smaller model or a larger card (docs/gpus.md)"
