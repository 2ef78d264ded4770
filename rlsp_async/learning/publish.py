"""How weights leave the learner: the probe that is published with them, and the model as a Hugging Face directory.

The weights themselves travel by a transport (`rlsp_async.weights`).
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlsp_async.columns import Ids, pack_floats, pack_ints
from rlsp_async.config import LoraConfig
from rlsp_async.errors import DataError, MachineError
from rlsp_async.files import readable
from rlsp_async.learning import lora, pack
from rlsp_async.learning.checkpoint import replace_directory
from rlsp_async.learning.fence import WriteFence
from rlsp_async.learning.policy import ForwardRequest, Policy
from rlsp_async.learning.ranks import is_sharded
from rlsp_async.messages import Probe
from rlsp_async.weights.snapshot import Snapshot, TensorInfo, infos_of

GENERATION = "generation_config.json"
PROBE_TOKENS = 48
TEXT_TOKENS = 64
_WEIGHTS = (".safetensors", ".bin", ".index.json", ".gguf", ".pt", ".pth")


def probe_ids(seed: int, num_vocabulary: int, context_tokens: int) -> Ids:
    """The probe's fixed sequence, drawn from the seed.

    Args:
        seed: the run's seed.
        num_vocabulary: number of token ids to draw from.
        context_tokens: longest sequence of the model.

    Returns:
        2 to 48 token ids.
    """
    length = max(2, min(PROBE_TOKENS, context_tokens))
    return np.random.default_rng((seed, length)).integers(0, num_vocabulary, length).astype(np.int32)


def text_probe_ids(prompts: Iterable[list[int]], num_vocabulary: int, context_tokens: int) -> Ids | None:
    """The probe's sequence of real text: log-probs of random ids are where bfloat16 is least exact.

    Args:
        prompts: encoded prompts; the first ones are taken, end to end, and again where they are too short.
        num_vocabulary: number of token ids of the model.
        context_tokens: longest sequence of the model.

    Returns:
        2 to 64 token ids; None: there is no text that the model can read.
    """
    length, ids = max(2, min(TEXT_TOKENS, context_tokens)), list[int]()
    for prompt in itertools.islice(prompts, TEXT_TOKENS):
        ids += prompt
        if len(ids) >= length:
            break
    if not ids or min(ids) < 0 or max(ids) >= num_vocabulary:
        return None
    return np.resize(np.asarray(ids, dtype=np.int32), length)


@torch.no_grad()
def make_probe(policy: Policy, ids: Ids) -> Probe:
    """Computes a probe of the policy's present weights.

    Args:
        policy: the model.
        ids: N token ids, at least 2.

    Returns:
        the ids, and the log-probs at temperature 1 of ids[1:].
    """
    num = len(ids) - 1
    sequence = pack.Sequences(
        [ids[:1]],
        [ids[1:]],
        np.zeros(num, np.float32),
        np.zeros(num, np.int32),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )
    logp_R = policy.outputs(
        pack.pack_sequences(sequence, [0]), 1.0, ForwardRequest(values=False, has_entropy=False)
    ).logp_R
    policy.release()
    return Probe(ids=pack_ints(ids), logprobs=pack_floats(logp_R.float().cpu().numpy()))


def published_tensors(policy: Policy) -> dict[str, torch.Tensor]:
    """What a version consists of: the adapters, or all weights of the model (`checkpoint_tensors`).

    Every rank of a sharded model calls this; the weights are then copies in the memory of the host.

    Args:
        policy: the model.

    Returns:
        tensors by name; none on other ranks than 0.
    """
    if policy.adapters:
        return {name: parameter.detach() for name, parameter in policy.adapters.items()}
    if policy.ranks.size == 1:
        return checkpoint_tensors(policy.model)
    whole = {name: value.cpu() if policy.ranks.is_first else value[:0] for name, value in policy.whole_parameters()}
    return checkpoint_tensors(policy.model, whole) if policy.ranks.is_first else {}


def published_infos(policy: Policy) -> list[TensorInfo]:
    """Names, types and shapes of the tensors of `published_tensors`; nothing is gathered or copied.

    Args:
        policy: the model; a sharded one may be asked on one rank alone.
    """
    if policy.adapters:
        return infos_of(policy.adapters.items())
    empty = {
        name: torch.empty(p.shape, dtype=policy.dtype if is_sharded(p) else p.dtype, device="meta")
        for name, p in policy.policy_parameters()
    }
    return infos_of(checkpoint_tensors(policy.model, empty).items())


def checkpoint_tensors(model: Any, parameters: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The model's weights under the names, and in the shapes, of its checkpoint; tied weights once.

    They differ from those of the parameters where transformers packs several tensors into one, as the experts of
    mixtures. Engines load a published version as they load a checkpoint.

    Args:
        model: a model of transformers.
        parameters: the values of its parameters by name; None: its own.

    Returns:
        tensors by name.
    """
    from transformers.core_model_loading import revert_weight_conversion

    tensors = dict(parameters or {name: p.detach() for name, p in model.named_parameters()})
    saved = model.state_dict()
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in saved}  # DeepSeek's router bias
    reverted: dict[str, torch.Tensor] = revert_weight_conversion(model, dict(tensors))
    same = set(reverted) == set(tensors)
    return {name: reverted[name] for name in tensors} if same else reverted


def export_hf(
    model: Any,
    model_dir: Path,
    target: Path,
    fence: WriteFence,
    adapters: LoraConfig | None = None,
    snapshot: Snapshot | None = None,
) -> None:
    """Writes the model as a plain Hugging Face directory, whole, which `from_pretrained` and vLLM load.

    Args:
        model: gives the config, and its weights where there is no snapshot.
        model_dir: gives everything else, byte for byte: tokenizer, chat template, generation_config, licence.
        target: the directory.
        fence: the right to write.
        adapters: rank and alpha of the model's adapters, for `write_model`.
        snapshot: gives the weights; the model may be in training. To be held meanwhile. None: the model gives them.

    Raises:
        MachineError: the disk refuses.
        FencedError: a newer start of the learner has claimed the run.
    """

    def write(directory: Path) -> None:
        write_model(model, model_dir, directory, None if snapshot is None else {}, adapters=adapters)
        if snapshot is not None:
            with (directory / "model.safetensors").open("wb") as file:
                file.writelines(snapshot.chunks())

    try:
        replace_directory(target, write, fence)
    except OSError as e:
        fence.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the model cannot be written: {e}; free some space") from e


def try_export(model: Any, model_dir: Path) -> None:
    """Exports everything but the weights to a place that is deleted again, so that no run trains what it cannot export.

    Args:
        model: the model before its first step.
        model_dir: the directory that it was loaded from.

    Raises:
        DataError: the model's configuration or its weights cannot be brought into the form of a checkpoint.
        MachineError: the disk refuses.
    """
    from transformers import AutoConfig

    try:
        checkpoint_tensors(model)
        with tempfile.TemporaryDirectory() as directory:
            write_model(model, model_dir, Path(directory), weights={})
            AutoConfig.from_pretrained(directory, local_files_only=True)
    except OSError as e:
        raise MachineError(f"{tempfile.gettempdir()}: the export of the model cannot be tried: {e}") from e
    except Exception as e:  # translated: whatever a model's code raises, the trained model could not be exported
        text = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise DataError(f"{model_dir}: the trained model could not be exported: {text}") from e


def write_model(
    model: Any,
    model_dir: Path,
    directory: Path,
    weights: dict[str, torch.Tensor] | None = None,
    adapters: LoraConfig | None = None,
) -> None:
    """Writes a model directory. Of a model with adapters their sum with the weights, and the adapters beside it.

    The generation_config is the run's only where the model came without one. transformers refuses to save some that it
    loads (sampling settings without do_sample), so that it is given a plain one, whose file is then replaced.

    Args:
        model: gives config and safetensors.
        model_dir: gives everything else.
        directory: an empty directory.
        weights: tensors by name; None: the model's own.
        adapters: rank and alpha of the model's adapters, which are written to DIRECTORY/adapter; None: not.
    """
    from transformers import GenerationConfig

    given = model_dir / GENERATION
    own = model.generation_config
    try:
        if given.exists():
            model.generation_config = GenerationConfig()
        with lora.merged(model):
            model.save_pretrained(directory, state_dict=weights)
        readable(directory)
    finally:
        model.generation_config = own
    if given.exists():
        shutil.copyfile(given, directory / GENERATION)
    for path in model_dir.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHTS) and not (directory / path.name).exists():
            shutil.copyfile(path, directory / path.name)
    if adapters:
        lora.write_adapter(directory / lora.DIRECTORY, lora.adapter_parameters(model), adapters, model_dir)
