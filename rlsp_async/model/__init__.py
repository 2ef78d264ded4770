"""The model that a run starts from, as a Hugging Face directory.

info.py     what a model's directory and the settings say about it: sizes, window, end tokens; no weights are loaded
weights.py  the safetensors files of a directory: which are read, are they whole; by their headers
adapter.py  adapters (LoRA): which layers have one, names, files, and the sum with the weights
create.py   RUN/model: built with random weights, or taken from a directory of the user; do the prompts fit into it?

The names below are the ones that other modules use; torch and transformers are imported when a model is made.
"""

from rlsp_async.model.create import (
    check_model,
    check_planned_vocabulary,
    check_window,
    context_tokens,
    own_code,
    planned_tokenizer,
    prepare_model,
    reason,
    scratch_llama,
    tiny_qwen2,
    transformers_config,
)
from rlsp_async.model.info import (
    TINY_QWEN2,
    ModelInfo,
    planned_model,
    read_config,
    read_longest_prompt,
    read_model_info,
    write_longest_prompt,
)
from rlsp_async.model.weights import count_parameters, weight_files

__all__ = [
    "TINY_QWEN2",
    "ModelInfo",
    "check_model",
    "check_planned_vocabulary",
    "check_window",
    "context_tokens",
    "count_parameters",
    "own_code",
    "planned_model",
    "planned_tokenizer",
    "prepare_model",
    "read_config",
    "read_longest_prompt",
    "read_model_info",
    "reason",
    "scratch_llama",
    "tiny_qwen2",
    "transformers_config",
    "weight_files",
    "write_longest_prompt",
]
