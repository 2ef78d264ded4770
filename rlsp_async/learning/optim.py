"""From gradients to steps: AdamW, or Muon on the matrices and AdamW on the rest; schedule, clipping, averages.

Weights below float32 are trained through float32 masters: a step of 1e-6 vanishes in bfloat16. The critic's parameters
have a learning rate and a gradient clip of their own.

`StackedMuon` has the mathematics of `torch.optim.Muon` for small models, all matrices of one shape at a time. torch
orthogonalises one matrix after the other in bfloat16, which for 21 matrices of 64 x 192 costs a sixth of a training
step on a CPU; stacked and in float32 it costs a fortieth. The Newton-Schulz iteration is X <- a X + (b A + c A A) X
with A = X X^T, five times, from X = G / |G|.

`PolicyAverage` is a reference that follows the policy, by one move for each step:

    reference <- (1 - rate) reference + rate policy
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlsp_async import config
from rlsp_async.errors import DataError, DivergedError
from rlsp_async.learning.policy import Policy
from rlsp_async.learning.ranks import Ranks, is_sharded, local, rows_of

Named = list[tuple[str, nn.Parameter]]

_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_EPS = 1e-7
_SMALL = 1 << 17
"""Number of elements of a matrix from which on one matrix at a time is as fast and takes less memory."""


def lr_factor(cfg: config.OptimizerConfig, update: int, num_updates: int) -> float:
    """Factor of the learning rates at an update: linear warm-up, then constant or cosine down to `floor`.

    Args:
        cfg: warm-up, schedule and floor.
        update: number of the update in its stage, from 0.
        num_updates: updates of the stage.

    Returns:
        0 to 1.
    """
    if update < cfg.warmup_steps:
        return (update + 1) / cfg.warmup_steps
    if cfg.schedule == "constant":
        return 1.0
    done = min(1.0, (update - cfg.warmup_steps) / max(1, num_updates - cfg.warmup_steps))
    return cfg.floor + (1.0 - cfg.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


class Updater:
    """The optimizers of one stage, made for its first step. `num_done` counts the updates of the stage.

    A parameter below float32 loses its gradient to its master as soon as a backward pass has made it: gradients of
    micro-batches that add up in bfloat16 lose up to three of eight bits, and they would take memory. At most one
    `Updater` of a policy may be open.

    Of a sharded parameter this rank's rows are the master: optimizers see plain tensors, and their state is sharded as
    the parameters are. Gradients of parameters that every rank holds whole are added up over the ranks here; those of
    sharded ones were by the backward pass.
    """

    def __init__(self, cfg: config.OptimizerConfig, policy: Policy, critic_lr: float, num_updates: int) -> None:
        self.cfg, self.num_updates, self.num_done = cfg, num_updates, 0
        self._ranks, self._is_narrow = policy.ranks, policy.dtype != torch.float32
        trained: Named = [(n, p) for n, p in policy.policy_parameters() if p.requires_grad]
        critic: Named = list(policy.critic_parameters())
        self._pairs = {name: (p, _master(p)) for name, p in (*trained, *critic)}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(_move_gradient, master))  # type: ignore[no-untyped-call]
            for parameter, master in self._pairs.values()
            if master is not parameter and not is_sharded(parameter)
        ]
        heads = {id(m.weight) for m in (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())}
        matrices = [n for n, p in trained if p.ndim == 2 and id(p) not in heads] if cfg.name == "muon" else []
        rest = [n for n, _ in trained if n not in set(matrices)]
        self._policy, self._critic = [n for n, _ in trained], [n for n, _ in critic]
        self._optimizers: dict[str, tuple[torch.optim.Optimizer, float, list[str]]] = {}
        if matrices:
            masters = self._masters(matrices)
            whole = {id(master): self._pairs[n][0].shape for n, master in zip(matrices, masters, strict=True)}
            muon = make_muon(masters, cfg.muon_lr, cfg.weight_decay, MatrixShards(self._ranks, whole))
            self._optimizers["muon"] = (muon, cfg.muon_lr, matrices)
        self._add_adamw("adamw", rest, cfg.lr)
        self._add_adamw("critic", self._critic, critic_lr or cfg.lr)

    def names(self, optimizer: str) -> list[str]:
        """Names of the parameters that "adamw", "muon" or "critic" trains; empty when there is no such optimizer."""
        return self._optimizers[optimizer][2] if optimizer in self._optimizers else []

    def master(self, name: str) -> Tensor:
        """The float32 tensor that is trained in the place of a parameter; the parameter itself if it is float32; this
        rank's rows if it is sharded."""
        return self._pairs[name][1]

    def is_split(self, key: str) -> bool:
        """Whether this rank has only some rows of a tensor of `state`."""
        kind, _, rest = key.partition("/")
        field, _, name = rest.partition("/")
        return self.is_sharded(rest) if kind == "master" else field != "step" and self.is_sharded(name)

    def is_sharded(self, name: str) -> bool:
        """Whether this rank trains only some rows of a parameter."""
        return is_sharded(self._pairs[name][0])

    def _add_adamw(self, key: str, names: list[str], lr: float) -> None:
        if names:
            adamw = torch.optim.AdamW(
                self._masters(names), lr=lr, betas=self.cfg.betas, weight_decay=self.cfg.weight_decay, fused=True
            )
            self._optimizers[key] = (adamw, lr, names)

    def _masters(self, names: Iterable[str]) -> list[Tensor]:
        return [self._pairs[n][1] for n in names]

    def step(self, where: str, critic_only: bool = False, policy_factor: float = 1.0) -> dict[str, float]:
        """Makes one update from the parameters' gradients, and clears them.

        Args:
            where: stage and step, for errors.
            critic_only: whether the policy's parameters stay as they are.
            policy_factor: factor of the learning rates of all but the critic, in this update.

        Returns:
            `grad_norm` and `critic_grad_norm` before clipping, and `lr`.

        Raises:
            DivergedError: a gradient is not finite; the weights are unchanged then.
        """
        self._collect_gradients()
        norms = {"grad_norm": self._clip(self._policy)}
        if self._critic:
            norms["critic_grad_norm"] = self._clip(self._critic)
        for what, norm in norms.items():
            if not math.isfinite(norm):
                raise DivergedError(f"{where}: {what} is {norm}; lower the learning rate or clip_norm")
        factor = lr_factor(self.cfg, self.num_done, self.num_updates)
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
        """Clips the norm of these parameters' gradients together (`clip_norm` 0: not); returns the norm before."""
        grads = [m for m in self._masters(names) if m.grad is not None]
        if self._ranks.size == 1:
            return float(nn.utils.clip_grad_norm_(grads, self.cfg.clip_norm or math.inf)) if grads else 0.0
        norm = self._norm_of_all_ranks(names)
        nn.utils.clip_grads_with_norm_(grads, self.cfg.clip_norm or math.inf, torch.tensor(norm, dtype=torch.float32))
        return norm

    def _norm_of_all_ranks(self, names: list[str]) -> float:
        """The norm of these parameters' gradients, whose rows lie on all ranks."""
        squares = torch.zeros(2, dtype=torch.float64)  # of sharded gradients, and of those that every rank has whole
        for name in names:
            grad = self._pairs[name][1].grad
            if grad is not None:
                squares[0 if self.is_sharded(name) else 1] += float(grad.double().square().sum())
        return math.sqrt(float(self._ranks.sum(squares[:1])) + float(squares[1]))

    def close(self) -> None:
        """Lets go of the parameters: their gradients stay where they are from now on."""
        while self._hooks:
            self._hooks.pop().remove()

    def _collect_gradients(self) -> None:
        """Moves gradients that no backward pass moved to the masters, and adds up those that ranks hold whole."""
        for parameter, master in self._pairs.values():
            if is_sharded(parameter):
                master.grad = None if parameter.grad is None else local(parameter.grad)
                parameter.grad = None
                continue
            if master is not parameter and parameter.grad is not None:
                _move_gradient(master, parameter)
            if master.grad is not None:
                self._ranks.sum(master.grad)

    def _write_back(self) -> None:
        """Copies masters into parameters below float32, and clears all gradients."""
        for parameter, master in self._pairs.values():
            master.grad = None
            if master is not parameter and not is_sharded(parameter):
                parameter.data.copy_(master.data)

    def state(self) -> dict[str, Tensor]:
        """The state of the optimizers, and the float32 masters, as named tensors for a checkpoint."""
        apart = [(n, m) for n, (p, m) in self._pairs.items() if m is not p and (self._is_narrow or not is_sharded(p))]
        tensors = {f"master/{n}": m.detach() for n, m in apart}
        for key, (optimizer, _, names) in self._optimizers.items():
            for name in names:
                for field, value in optimizer.state.get(self._pairs[name][1], {}).items():
                    tensors[f"{key}/{field}/{name}"] = torch.as_tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], num_done: int) -> None:
        """Restores what `state` returned, whole, and the number of updates that were done."""
        self.num_done = num_done
        for name, (parameter, master) in self._pairs.items():
            if master is not parameter and (self._is_narrow or not is_sharded(parameter)):
                master.data.copy_(rows_of(tensors[f"master/{name}"], parameter))
        for key, (optimizer, _, names) in self._optimizers.items():
            for full in tensors:
                kind, _, rest = full.partition("/")
                field, _, name = rest.partition("/")
                if kind == key and name in names:
                    parameter, master = self._pairs[name]
                    at = master.device if field != "step" or _steps_on_device(optimizer) else "cpu"
                    value = tensors[full] if field == "step" else rows_of(tensors[full], parameter)
                    optimizer.state[master][field] = value.clone().to(at)


def _move_gradient(master: Tensor, parameter: Tensor) -> None:
    """Adds the gradient of a parameter to its float32 master's, and clears it."""
    assert parameter.grad is not None
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad += parameter.grad
    parameter.grad = None


def _steps_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the number of updates lies beside the weights: the fused kernels read it there, the others on the CPU."""
    return any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)


def _master(parameter: nn.Parameter) -> Tensor:
    """The float32 tensor that is trained in the place of a parameter."""
    if is_sharded(parameter):
        return local(parameter).requires_grad_()
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()


# --- Muon -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatrixShards:
    """What the ranks hold of the matrices that Muon trains."""

    ranks: Ranks
    shapes: dict[int, torch.Size]
    """Shape of the whole matrix, by the `id` of the tensor with this rank's rows; without one the tensor's own."""

    def shape(self, matrix: Tensor) -> torch.Size:
        """Shape of the whole matrix."""
        return self.shapes.get(id(matrix), matrix.shape)


WHOLE = MatrixShards(Ranks.single(), {})


def make_muon(
    matrices: list[Tensor], lr: float, weight_decay: float, shards: MatrixShards | None = None
) -> torch.optim.Optimizer:
    """Makes `StackedMuon` when every matrix is small or sharded, else `torch.optim.Muon`, whose state has the same
    names.

    Args:
        matrices: what is trained, each [A, B], or this rank's rows of it.
        lr: learning rate.
        weight_decay: share of a matrix, times the learning rate, that a step takes off.
        shards: what the ranks hold; None: every matrix is whole.

    Returns:
        the optimizer.
    """
    shards = shards or WHOLE
    if shards.ranks.size == 1 and max(m.numel() for m in matrices) > _SMALL:
        return torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="original")
    muon = StackedMuon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="original")
    muon.shards = shards
    return muon


class StackedMuon(torch.optim.Muon):
    """Muon with momentum .95 and Nesterov's look-ahead; the step of an A x B matrix is lr * sqrt(max(1, A / B)).

    Momentum is kept of this rank's rows alone; the matrix that is orthogonalised is put together on every rank.
    """

    shards = WHOLE

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Makes one update from the gradients; matrices without a gradient stay as they are."""
        assert closure is None
        for group in self.param_groups:
            for stacked in self._by_shape(p for p in group["params"] if p.grad is not None):
                self._step(stacked, group["lr"], group["weight_decay"], group["momentum"])

    def _step(self, matrices: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        """Updates matrices of one shape."""
        ahead = []
        for matrix in matrices:
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            grad = matrix.grad
            assert grad is not None
            state["momentum_buffer"].lerp_(grad, 1 - momentum)
            ahead.append(grad.lerp(state["momentum_buffer"], momentum))
        ranks, (rows, columns) = self.shards.ranks, self.shards.shape(matrices[0])
        step = lr * math.sqrt(max(1.0, rows / columns))
        begin, end = ranks.rows(rows)
        whole = torch.stack([ranks.whole(rows_held, rows) for rows_held in ahead])
        for matrix, update in zip(matrices, orthogonalise(whole), strict=True):
            matrix.mul_(1 - lr * weight_decay).add_(update[begin:end], alpha=-step)

    def _by_shape(self, matrices: Iterable[Tensor]) -> list[list[Tensor]]:
        """Matrices in groups of one shape; large ones alone."""
        groups: dict[tuple[int, ...], list[Tensor]] = {}
        for number, matrix in enumerate(matrices):
            shape = self.shards.shape(matrix)
            groups.setdefault((*shape, -1 if shape.numel() <= _SMALL else number), []).append(matrix)
        return list(groups.values())


def orthogonalise(grads_MAB: Tensor) -> Tensor:
    """Brings the singular values of matrices near 1, between about .7 and 1.2.

    Args:
        grads_MAB: M matrices of A x B.

    Returns:
        [M, A, B].
    """
    tall = grads_MAB.shape[1] > grads_MAB.shape[2]
    x = grads_MAB.transpose(1, 2) if tall else grads_MAB
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)
    for _ in range(_STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.transpose(1, 2) if tall else x


# --- the average of a policy ------------------------------------------------------------------------------------------


class PolicyAverage:
    """The exponential moving average of the language model's parameters, which a reference policy takes over.

    The average is float32 whatever the model's type is, because a small rate vanishes in bfloat16. It is part of every
    checkpoint, so that a learner that restarts has the same reference to the last bit.
    """

    def __init__(self, reference: Policy, rate: float) -> None:
        self.rate = rate
        self._parameters = dict(reference.policy_parameters())
        self._reference = {name: local(p) for name, p in self._parameters.items()}
        self._mean = {name: p.float() for name, p in self._reference.items()}  # float32: the parameter itself

    @torch.no_grad()
    def follow(self, policy: Policy) -> None:
        """Moves the average, and the reference, towards the policy after a step."""
        for name, parameter in policy.policy_parameters():
            self._mean[name].lerp_(local(parameter).float(), self.rate)
        self._write_back()

    def state(self) -> dict[str, Tensor]:
        """The average as named tensors, for a checkpoint."""
        return dict(self._mean)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned, whole.

        Raises:
            DataError: the tensors are not of this model.
        """
        if set(tensors) != set(self._mean) or any(tensors[n].shape != p.shape for n, p in self._parameters.items()):
            raise DataError("the checkpoint's average of the policy is not of this model; start the stage again")
        for name, mean in self._mean.items():
            mean.copy_(rows_of(tensors[name], self._parameters[name]))
        self._write_back()

    def _write_back(self) -> None:
        """Copies the average into a reference below float32."""
        for name, mean in self._mean.items():
            if self._reference[name].data_ptr() != mean.data_ptr():
                self._reference[name].copy_(mean)
