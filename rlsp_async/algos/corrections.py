"""Correction stages in front of any loss, in one fixed order: reject, mask, weight; then surrogate, then aggregation.

    share_t  <-  share_t * keep_rollout * keep_t * w_t

The shares were made before, from the lengths of all rollouts of the update: what a stage leaves out does not make the
rest count more. An algorithm knows nothing of the stages. Admission by lag comes before all of them
(`stages.NAME.max_lag`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlsp_async.algos import masks, rejections, watch, weights
from rlsp_async.algos.view import View
from rlsp_async.algos.watch import Stats
from rlsp_async.config.schema import Section


class CorrectionsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`corrections = { ... }` among the options of any algorithm that learns from rollouts."""

    policy: Literal["old", "present"] = "old"
    """Numerator of the ratios: the learner's policy at the beginning of the step, or at this update."""
    reject: Literal["none", "opsm", "mis", "geometric", "k2", "k3", "outlier"] = "none"
    """Whole rollouts that are left out."""
    reject_low: float = 0.0
    """Lower bound of "geometric" and "outlier"; 0: that stage's default."""
    reject_high: float = 0.0
    """Upper bound, or largest drift of "opsm", divergence of "k2" and "k3"; 0: that stage's default."""
    mask: Literal["none", "icepop", "dppo_tv", "dppo_kl", "kpop", "lag", "m2po", "m2po_released"] = "none"
    """Single tokens that are left out."""
    mask_low: float = 0.0
    """Lower bound of "icepop"; 0: that stage's default."""
    mask_high: float = 0.0
    """Upper bound, divergence, budget or versions; 0: that stage's default."""
    weight: Literal["none", "token", "rollout"] = "none"
    """Truncated importance weight."""
    weight_high: float = 0.0
    """Largest weight; inf: none; 0: that weight's default."""
    ess_base: float = 0.0
    """VCPO: learning rate times sqrt(min(1, ESS/B / ess_base)) of the rollouts' ratios; 0: off."""

    def __post_init__(self) -> None:
        for stage, kind, low, has_low in (
            ("reject", self.reject, self.reject_low, rejections.HAS_LOW),
            ("mask", self.mask, self.mask_low, masks.HAS_LOW),
        ):
            if low and kind not in has_low:
                raise ValueError(
                    f"{stage}_low means something only to {', '.join(sorted(has_low))}, and {stage} is {kind!r}"
                )
        for name in ("reject", "mask", "weight"):
            if getattr(self, f"{name}_high") and getattr(self, name) == "none":
                raise ValueError(f'{name}_high is set and {name} is "none"; name a stage or leave it out')
        if min(self.reject_low, self.reject_high, self.mask_low, self.mask_high, self.weight_high, self.ess_base) < 0:
            raise ValueError("bounds are 0 (default) or above")

    @property
    def active(self) -> bool:
        """Whether anything is corrected."""
        return bool({self.reject, self.mask, self.weight} - {"none"}) or self.ess_base > 0

    @property
    def needs_old(self) -> bool:
        """Whether log-probs from the beginning of the step are asked for."""
        return (self.active and self.policy == "old") or self.measures

    @property
    def measures(self) -> bool:
        """Whether a number of the whole batch is asked for before its first update."""
        return self.mask in masks.MEASURED


def measure(cfg: CorrectionsConfig, batch: View | None) -> float:
    """The mask's limit for this batch; the setting itself where nothing is measured, or there is nothing to measure."""
    high = cfg.mask_high or masks.DEFAULTS.get(cfg.mask, (0.0, 0.0))[1]
    return high if batch is None or not cfg.measures else masks.MEASURED[cfg.mask](batch, high)


def correct(cfg: CorrectionsConfig, view: View, mask_limit: float) -> tuple[Tensor, Stats]:
    """Factor [R] of every token's share (0: left out), and what each stage did."""
    ratio, keep = view.log_ratio.exp(), view.mask
    stats = watch.stage("all", view, ratio, keep) | _rollouts(view)
    if cfg.reject != "none":
        low, high = rejections.DEFAULTS[cfg.reject]
        keep = keep & rejections.KINDS[cfg.reject](view, cfg.reject_low or low, cfg.reject_high or high)
        stats |= watch.stage("reject", view, ratio, keep)
    if cfg.mask != "none":
        low = cfg.mask_low or masks.DEFAULTS[cfg.mask][0]
        keep = keep & masks.KINDS[cfg.mask](view, low, mask_limit)
        stats |= watch.stage("mask", view, ratio, keep)
    if cfg.weight == "none":
        return keep.to(ratio.dtype), stats
    weight = weights.KINDS[cfg.weight](view, cfg.weight_high or weights.DEFAULTS[cfg.weight])
    return torch.where(keep, weight, torch.zeros_like(weight)), stats | watch.stage("weight", view, weight, keep)


def _rollouts(view: View) -> Stats:
    """Effective fraction of whole rollouts, VCPO's ESS/B."""
    opens = torch.ones_like(view.mask)
    opens[1:] = view.rollout[1:] != view.rollout[:-1]
    return watch.effective("rollout_ess", weights.rollout_ratio(view), opens)
