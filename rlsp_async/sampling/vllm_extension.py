"""What runs inside vLLM's worker process: it loads weights from a file, and it ends when the sampler ends.

vLLM imports this module in the worker (`worker_extension_cls`) before it loads the model.

On the CPU vLLM packs linear weights for its kernels and drops the originals; a reload then leaves a tied head that
computes with its old packed copy, silently. Here linears stay plain on the CPU: weights are copied in place and a tied
head stays tied. (To pack the head again after each reload is the alternative, slower for small models. Tokens per
CPU-second and pause of an update with 64 running requests, one core of an EPYC: 0.2 M parameters plain 8.0k, 30 ms,
packed 6.7k, 48 ms; 10 M plain 1.81k, 63 ms, packed 1.88k, 97 ms.) The experts of mixtures have no plain kernel there:
they get plain tensors before a load and are packed again after it. On a GPU nothing is packed, and vLLM's own
layer-wise reload does the work.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rlsp_async.messages import Invite
from rlsp_async.processes import kill_with_parent
from rlsp_async.sampling.vllm_lora import use_one_adapter
from rlsp_async.sampling.vllm_settings import FRONT_PID
from rlsp_async.weights.receive import Receiver
from rlsp_async.weights.sums import live_total

BACKEND = "rlsp-file"
_PLAIN = "rlsp_plain_experts"
"""Attribute of a layer in which its `PlainExperts` are kept."""


def keep_linears_plain() -> None:
    """Makes vLLM compute linear layers with `torch.nn.functional.linear` on the weights themselves."""
    import vllm._custom_ops as custom_ops
    import vllm.model_executor.layers.utils as layer_utils

    custom_ops._supports_onednn = False
    layer_utils.check_cpu_sgl_kernel = lambda n, k, dtype: False


class PlainExperts(NamedTuple):
    """How the experts of one layer were before vLLM packed them for the CPU."""

    shapes: dict[str, torch.Size]
    attributes: dict[str, dict[str, Any]]
    """What vLLM hangs on each parameter: its loader."""
    pack: Callable[[], None]
    """Packs what the layer holds."""


def remember_plain_experts() -> None:
    """Makes vLLM note down, in each layer with experts, what `unpack_experts` needs."""
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    pack = CPUUnquantizedExperts.process_weights_after_loading

    def remember_and_pack(self: Any, layer: torch.nn.Module) -> None:
        held = {name: p for name, p in layer.named_parameters(recurse=False) if name.startswith(("w13_", "w2_"))}
        vars(layer)[_PLAIN] = PlainExperts(
            {name: p.shape for name, p in held.items()},
            {name: dict(vars(p)) for name, p in held.items()},
            lambda: pack(self, layer),
        )
        pack(self, layer)

    CPUUnquantizedExperts.process_weights_after_loading = remember_and_pack


def unpack_experts(model: torch.nn.Module) -> None:
    """Gives every layer with experts plain tensors, whose values are undefined until they are loaded."""
    for layer, plain in _layers_with_experts(model):
        for name, shape in plain.shapes.items():
            old = getattr(layer, name)
            if name.endswith("_bias"):  # the kernel refers to this very object
                old.data = old.new_empty(shape)
                continue
            new = torch.nn.Parameter(old.new_empty(shape), requires_grad=False)
            for key, value in plain.attributes[name].items():
                setattr(new, key, value)
            layer.register_parameter(name, new)


def pack_experts(model: torch.nn.Module) -> None:
    """Packs the experts of every layer again."""
    for _, plain in _layers_with_experts(model):
        plain.pack()


def _layers_with_experts(model: torch.nn.Module) -> list[tuple[torch.nn.Module, PlainExperts]]:
    return [(layer, vars(layer)[_PLAIN]) for layer in model.modules() if _PLAIN in vars(layer)]


@dataclass
class FileInit(WeightTransferInitInfo):  # type: ignore[misc]
    """Settings of the transfer: none."""


@dataclass
class FileUpdate(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One safetensors file with every tensor of the model under its checkpoint name."""

    path: str = ""
    ticket: str = ""
    """Without a path: what came over a channel with this ticket."""


class FileWeights(WeightTransferEngine[FileInit, FileUpdate]):  # type: ignore[misc]
    """The weight update of vLLM, read from a file. Start, update and finish run while generation is paused."""

    init_info_cls = FileInit
    update_info_cls = FileUpdate

    def init_transfer_engine(self, init_info: FileInit) -> None:
        """Does nothing: a file needs no connection."""

    def start_weight_update(self) -> None:
        """The layers drop what they derived from the old weights."""
        if current_platform.is_cpu():
            unpack_experts(self.model)
        else:
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: FileUpdate) -> None:
        """Copies (CPU) or loads (GPU) every tensor of the file, or of what was received."""
        path, ticket = update_info.path, update_info.ticket
        self.model.load_weights(_tensors(path) if path else _receivers[0].take(ticket))

    def finish_weight_update(self) -> None:
        """The layers derive what they need from the new weights."""
        if current_platform.is_cpu():
            pack_experts(self.model)
        else:
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Does nothing: nothing is held open."""


_receivers: list[Receiver] = []
"""The receiver of this process, once there is one: the extension fills it, and the weight update empties it."""


class Extension:
    """Methods that the sampler calls in the worker (`collective_rpc`)."""

    rank: int
    device: Any
    model_runner: Any
    """Of vLLM's worker, which this class is mixed into."""

    def live_total(self) -> int:
        """The sum of all sums over the parameters of this worker (`weights.sums`)."""
        return live_total(self.model_runner.get_model().parameters())

    def die_with(self, front: int) -> int:
        """Ends the engine when the sampler's process `front` ends in any way; returns the id of this process.

        Without this a sampler that is killed by SIGKILL leaves its engine running. Called by RPC, because this module
        may be imported before the worker is forked. Ctrl-C is ignored: the sampler drains and then ends the engine.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)  # inherited: the sampler's loop would take a signal to this process for one to itself
        if not kill_with_parent(front):  # tensor parallelism: vLLM's engine process stands between
            threading.Thread(target=_watch, args=(front,), name="watch-sampler", daemon=True).start()
        return os.getpid()

    def receive_begin(self, invite: bytes) -> None:
        """Begins to receive a version over a channel, in a thread: the worker's own thread goes on with the model."""
        self._receiver().begin(msgspec.msgpack.decode(invite, type=Invite))

    def receive_poll(self) -> tuple[str, ...]:
        """How far that is, as the fields of `Progress`."""
        return tuple(self._receiver().poll())

    def receive_stop(self) -> None:
        """Ends it, with its channel."""
        self._receiver().stop()

    def receive_write(self, ticket: str, path: str) -> None:
        """Writes what was received to a file, once: for adapters, which vLLM loads from a file."""
        tensors = dict(self._receiver().take(ticket))
        if self.rank == 0:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})

    def _receiver(self) -> Receiver:
        """That of this process; rank 0 of a channel is the learner."""
        if not _receivers:
            _receivers.append(Receiver(1 + self.rank, "cpu" if current_platform.is_cpu() else str(self.device)))
        return _receivers[0]


def end_with_front(environment: Mapping[str, str]) -> bool:
    """Ends this process when the sampler ends, if the sampler is its parent; returns whether it is.

    A spawned engine calls it when it imports this module. A sampler that is killed while its engine starts has not
    called `die_with` yet, and would leave a process that holds a GPU. An engine that is forked, or that stands below
    vLLM's own engine process (tensor parallelism), waits for `die_with`.
    """
    front = environment.get(FRONT_PID, "")
    return front.isdigit() and kill_with_parent(int(front))


def _watch(front: int) -> None:
    """Waits for the end of the sampler's process, then kills the engine process above and this one."""
    try:
        select.select([os.pidfd_open(front)], [], [])
    finally:
        engine = os.getppid()
        if engine > 1:
            os.kill(engine, signal.SIGKILL)
        os._exit(1)


def _tensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


end_with_front(os.environ)
if current_platform.is_cpu():
    keep_linears_plain()
    remember_plain_experts()
    use_one_adapter()
if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FileWeights)
