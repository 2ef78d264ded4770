"""How weights leave the learner: the probe that is published with them, and the model as a Hugging Face directory.

The weights themselves travel by a transport (`rlsp_async.weights`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlsp_async.columns import Ids, pack_floats, pack_ints
from rlsp_async.errors import MachineError
from rlsp_async.files import readable
from rlsp_async.learning import pack
from rlsp_async.learning.checkpoint import replace_directory
from rlsp_async.learning.fence import WriteFence
from rlsp_async.learning.policy import ForwardRequest, Policy
from rlsp_async.messages import Probe

_PROBE_TOKENS = 48
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
    length = max(2, min(_PROBE_TOKENS, context_tokens))
    return np.random.default_rng((seed, length)).integers(0, num_vocabulary, length).astype(np.int32)


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
    logp_R = policy.outputs(pack.pack_sequences(sequence, [0]), 1.0, ForwardRequest(values=False)).logp_R
    return Probe(ids=pack_ints(ids), logprobs=pack_floats(logp_R.float().cpu().numpy()))


def export_hf(model: Any, model_dir: Path, target: Path, fence: WriteFence) -> None:
    """Writes the model as a plain Hugging Face directory, whole, which `from_pretrained` and vLLM load.

    Args:
        model: gives config and safetensors.
        model_dir: gives everything else: tokenizer, chat template, licence.
        target: the directory.
        fence: the right to write.

    Raises:
        MachineError: the disk refuses.
        FencedError: a newer start of the learner has claimed the run.
    """

    def write(directory: Path) -> None:
        model.save_pretrained(directory)
        readable(directory)
        for path in model_dir.iterdir():
            if path.is_file() and not path.name.endswith(_WEIGHTS) and not (directory / path.name).exists():
                shutil.copyfile(path, directory / path.name)

    try:
        replace_directory(target, write, fence)
    except OSError as e:
        fence.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the model cannot be written: {e}; free some space") from e
