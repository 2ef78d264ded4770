"""From gradients to steps: AdamW, or Muon on the matrices and AdamW on the rest; schedule, clipping, divergence.

Weights below float32 are trained through float32 masters: a step of 1e-6 vanishes in bfloat16. The critic's parameters
have a learning rate and a gradient clip of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rlsp_async import config
from rlsp_async.errors import DivergedError
from rlsp_async.learning.muon import make_muon
from rlsp_async.learning.policy import Policy

Named = list[tuple[str, nn.Parameter]]


def scheduled(cfg: config.OptimizerConfig, update: int, num_updates: int) -> float:
    """Factor of the learning rates at update 0, 1, ...: linear warm-up, then constant or cosine down to `floor`."""
    if update < cfg.warmup_steps:
        return (update + 1) / cfg.warmup_steps
    if cfg.schedule == "constant":
        return 1.0
    done = min(1.0, (update - cfg.warmup_steps) / max(1, num_updates - cfg.warmup_steps))
    return cfg.floor + (1.0 - cfg.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


class Updater:
    """The optimizers of one stage; new at its first step. `num_done` counts its updates."""

    def __init__(self, cfg: config.OptimizerConfig, policy: Policy, critic_lr: float, num_updates: int) -> None:
        self.cfg, self.num_updates, self.num_done = cfg, num_updates, 0
        trained: Named = [(n, p) for n, p in policy.policy_parameters() if p.requires_grad]
        critic: Named = list(policy.critic_parameters())
        self._pairs = {name: (p, _master(p)) for name, p in (*trained, *critic)}
        heads = {id(m.weight) for m in (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())}
        matrices = [n for n, p in trained if p.ndim == 2 and id(p) not in heads] if cfg.name == "muon" else []
        rest = [n for n, _ in trained if n not in set(matrices)]
        self._policy, self._critic = [n for n, _ in trained], [n for n, _ in critic]
        self._optimizers: dict[str, tuple[torch.optim.Optimizer, float, list[str]]] = {}
        if matrices:
            muon = make_muon(self._masters(matrices), cfg.muon_lr, cfg.weight_decay)
            self._optimizers["muon"] = (muon, cfg.muon_lr, matrices)
        self._add_adamw("adamw", rest, cfg.lr)
        self._add_adamw("critic", self._critic, critic_lr or cfg.lr)

    def _add_adamw(self, key: str, names: list[str], lr: float) -> None:
        if names:
            adamw = torch.optim.AdamW(
                self._masters(names), lr=lr, betas=self.cfg.betas, weight_decay=self.cfg.weight_decay, fused=True
            )
            self._optimizers[key] = (adamw, lr, names)

    def _masters(self, names: Iterable[str]) -> list[Tensor]:
        return [self._pairs[n][1] for n in names]

    def step(self, where: str, critic_only: bool = False, policy_factor: float = 1.0) -> dict[str, float]:
        """One update from the gradients that lie in the parameters, which are cleared. `policy_factor` scales the
        learning rates of all but the critic, for this update.

        Returns norms before clipping and the learning rate. Raises DivergedError, naming `where`, when a gradient is
        not finite; weights are untouched then.
        """
        self._collect_gradients()
        norms = {"grad_norm": self._clip(self._policy)}
        if self._critic:
            norms["critic_grad_norm"] = self._clip(self._critic)
        for what, norm in norms.items():
            if not math.isfinite(norm):
                raise DivergedError(f"{where}: {what} is {norm}; lower the learning rate or clip_norm")
        factor = scheduled(self.cfg, self.num_done, self.num_updates)
        for key, (optimizer, lr, _) in self._optimizers.items():
            if critic_only and key != "critic":
                continue
            for group in optimizer.param_groups:
                group["lr"] = lr * factor * (1.0 if key == "critic" else policy_factor)
            optimizer.step()
        self._write_back()
        self.num_done += 1
        return {**norms, "lr": self.cfg.lr * factor * policy_factor}

    def _clip(self, names: list[str]) -> float:
        grads = [m for m in self._masters(names) if m.grad is not None]
        return float(nn.utils.clip_grad_norm_(grads, self.cfg.clip_norm)) if grads else 0.0

    def _collect_gradients(self) -> None:
        for parameter, master in self._pairs.values():
            if master is not parameter and parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None

    def _write_back(self) -> None:
        for parameter, master in self._pairs.values():
            master.grad = None
            if master is not parameter:
                parameter.data.copy_(master.data)

    def state(self) -> dict[str, Tensor]:
        """Optimizer state (and float32 masters) as named tensors."""
        tensors = {f"master/{n}": m.detach() for n, (p, m) in self._pairs.items() if m is not p}
        for key, (optimizer, _, names) in self._optimizers.items():
            for name in names:
                for field, value in optimizer.state.get(self._pairs[name][1], {}).items():
                    tensors[f"{key}/{field}/{name}"] = torch.as_tensor(value)
        return tensors

    def restore(self, tensors: dict[str, Tensor], num_done: int) -> None:
        """Takes back what `state` gave."""
        self.num_done = num_done
        for name, (parameter, master) in self._pairs.items():
            if master is not parameter:
                master.data.copy_(tensors[f"master/{name}"])
        for key, (optimizer, _, names) in self._optimizers.items():
            for full, value in tensors.items():
                kind, _, rest = full.partition("/")
                field, _, name = rest.partition("/")
                if kind == key and name in names:
                    master = self._pairs[name][1]
                    at = "cpu" if field == "step" and not value.is_cuda else master.device
                    optimizer.state[master][field] = value.clone().to(at)


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()
