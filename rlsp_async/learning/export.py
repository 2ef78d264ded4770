"""The trained model as a plain Hugging Face directory, which `from_pretrained` and vLLM load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rlsp_async.errors import MachineError
from rlsp_async.learning import checkpoint
from rlsp_async.learning.owner import Owner

_WEIGHTS = (".safetensors", ".bin", ".index.json", ".gguf", ".pt", ".pth")


def export_hf(model: Any, model_dir: Path, target: Path, owner: Owner) -> None:
    """Config and safetensors of `model`, everything else (tokenizer, chat template, licence) from `model_dir`.

    Appears complete or not at all. Raises MachineError when the disk refuses, FencedError when `owner` is not it.
    """

    def write(place: Path) -> None:
        model.save_pretrained(place)
        for path in model_dir.iterdir():
            if path.is_file() and not path.name.endswith(_WEIGHTS) and not (place / path.name).exists():
                shutil.copyfile(path, place / path.name)

    try:
        checkpoint.with_directory(target, write, owner)
    except OSError as e:
        owner.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the model cannot be written: {e}; free some space") from e
