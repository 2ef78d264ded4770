"""The model a run starts from: RUN/model, a Hugging Face directory with config, safetensors and tokenizer.

    prepare_model(cfg, run / "model")    # cfg.model.path: "" | "tiny-qwen2" | a local directory
    check_window(cfg, task, tokenizer)   # do the prompts fit?

"" builds a small Llama with random weights and the task's own tokenizer. "tiny-qwen2" builds a small random Qwen2 with
a byte-level tokenizer and a chat template: its answers are noise, but it takes the same path as a real chat model,
offline. Any other value is a directory of the user: small files are copied, weights are linked, nothing in it is
executed. A directory is made whole or not at all (written beside, then renamed); an existing one is not changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsp_async import tokens
from rlsp_async.config import RunConfig, ScratchModelConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.files import directory_being_made, readable
from rlsp_async.model.info import TINY, TINY_QWEN2, planned_model, read_config, read_json, read_model_info
from rlsp_async.model.weights import check_weights, count_parameters, weight_files
from rlsp_async.model_files import require_model_files
from rlsp_async.tasks.base import Split, Task, load_task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SURPLUS = 8
"""Families that use layers several times have fewer parameters than `num_parameters` says, at most by this factor."""
_NEVER_TEXT = frozenset({"<image_soft_token>"})
"""Tokens that released tokenizers have beyond the text model's vocabulary (Gemma 3 1B): no text contains them."""


def prepare_model(cfg: RunConfig, directory: str | Path) -> None:
    """Writes the initial model directory of a run, unless it exists.

    Raises DataError for a user's directory that cannot be used, ConfigError when no model can be built for the task.
    """
    where = Path(directory)
    if (where / "config.json").is_file():
        return
    if not cfg.model.path:
        _write_whole(where, lambda d: scratch_llama(cfg, d))
    elif cfg.model.path == TINY_QWEN2:
        tiny_qwen2(where, cfg.seed, cfg.model.dtype)
    else:
        source = Path(cfg.model.path).expanduser().resolve()
        check_model(source)
        tokens.load_tokenizer(source)
        _write_whole(where, lambda d: _copy_model(source, d))


def scratch_llama(cfg: RunConfig, directory: Path) -> None:
    """Writes a Llama with the sizes of `cfg.model.scratch`, seeded random weights and the task's tokenizer."""
    tokenizer = load_task(cfg.task, cfg.seed).tokenizer()
    if tokenizer is None:
        raise ConfigError(
            f"model.path: task {cfg.task.name!r} has no tokenizer for a model built from nothing; "
            f"set model.path to a local Hugging Face directory, or to {TINY_QWEN2!r} for a dry run"
        )
    tokenizer.model_max_length = cfg.model.scratch.context
    _write_random(_llama_config(cfg.model.scratch, tokenizer), cfg.seed, cfg.model.dtype, directory)
    tokenizer.save_pretrained(str(directory))


def planned_tokenizer(cfg: RunConfig, task: Task) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model that the run itself builds; None when it cannot build one for the task."""
    if cfg.model.path == TINY_QWEN2:
        return _byte_tokenizer()
    return None if cfg.model.path else task.tokenizer()


def tiny_qwen2(directory: str | Path, seed: int, dtype: str = "float32") -> None:
    """Writes a random Qwen2 of 0.2 M parameters (untied head) with a byte-level tokenizer and a ChatML template."""
    _write_whole(Path(directory), lambda d: _write_tiny(d, seed, dtype))


def check_model(source: Path) -> dict[str, Any]:
    """The config.json of a user's model directory. Raises DataError unless it is a causal LM in safetensors."""
    if not source.is_dir():
        raise DataError(f"model.path: {source}: no such directory; give a local Hugging Face model directory")
    try:
        settings = read_config(source)
    except DataError as e:
        raise DataError(f"model.path: {e}") from None
    if not isinstance(settings.get("model_type"), str):
        raise DataError(f"model.path: {source / 'config.json'}: names no model_type")
    _check_architecture(source, settings)
    try:
        require_model_files(source)
        check_weights(source, settings)
        _check_size(source)
    except DataError as e:
        raise DataError(f"model.path: {e}") from None
    return settings


def transformers_config(directory: Path) -> PretrainedConfig:
    """The configuration of a model directory as transformers reads it. Raises DataError when it does not."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as e:  # translated: transformers raises many kinds for settings that it does not expect
        raise DataError(f"{directory / 'config.json'}: transformers does not read it: {reason(e)}") from e
    return config


def reason(error: Exception) -> str:
    """The line of an error of transformers that says what is wrong: the first, or the one that names a nested error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    nested = [line.strip() for line in lines if line.lstrip().startswith(("ValueError: ", "TypeError: "))]
    return (nested or lines)[0][:500]


def own_code(source: Path) -> list[str]:
    """A sentence for each file of a user's model directory that names Python code of its own.

    `check_model` refuses the directory unless transformers has classes of its own for it.
    """
    return [
        f"{path}: names Python code of its own (auto_map), which is never run: transformers has this family itself"
        for path in (source / "config.json", source / "tokenizer_config.json")
        if path.is_file() and "auto_map" in read_json(path)
    ]


def _check_architecture(source: Path, settings: dict[str, Any]) -> None:
    """Raises DataError unless transformers has a causal language model for config.json."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kinds = settings.get("architectures") or []
    kinds = kinds if isinstance(kinds, list) else [kinds]
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(settings["model_type"], ())
    ours = {known} if isinstance(known, str) else set(known)
    if "auto_map" in settings and not ours & set(map(str, kinds)):
        raise DataError(
            f"model.path: {source}: needs its own Python code (auto_map), which is never run here, and transformers "
            f"has no causal language model of model_type {settings['model_type']!r} and this architecture"
        )
    if not any(str(kind).endswith("ForCausalLM") or kind in ours for kind in kinds):
        named = ", ".join(map(str, kinds)) or "an unnamed architecture"
        raise DataError(f"model.path: {source}: {named} is no causal language model")


def _check_size(source: Path) -> None:
    """Raises DataError when config.json describes a model that is many times larger than its files."""
    described, held = read_model_info(source).num_parameters, count_parameters(source)
    if described > _SURPLUS * held + 10**6:
        raise DataError(
            f"{source}: config.json describes a model of about {described:,} parameters, and its safetensors hold "
            f"{held:,}: they do not belong together"
        )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, num_vocabulary: int, where: str) -> None:
    """Raises DataError when the tokenizer has ids that the model's embedding does not have."""
    beyond = {i: t for t, i in tokenizer.get_vocab().items() if i >= num_vocabulary and t not in _NEVER_TEXT}
    if beyond:
        raise DataError(
            f"{where}: its tokenizer has ids up to {max(beyond)} ({beyond[min(beyond)]!r} is {min(beyond)}), and the "
            f"model's vocabulary has {num_vocabulary}: resize the model's embedding, or take the tokens out"
        )


def check_planned_vocabulary(cfg: RunConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises DataError when the tokenizer of a user's model has ids that the model's embedding does not have."""
    if cfg.model.path and cfg.model.path != TINY_QWEN2 and (shape := planned_model(cfg)):
        check_vocabulary(tokenizer, shape.vocabulary, f"model.path: {cfg.model.path}")


def check_window(cfg: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, num_prompts: int = 256) -> int:
    """The longest of the first `num_prompts` prompts of both splits, in tokens.

    Raises DataError when the tokenizer has more ids than the model; or, naming the prompt, when it and
    `sampling.max_new_tokens` do not fit into the model's window.
    """
    window, room = context_tokens(cfg), cfg.sampling.max_new_tokens
    check_planned_vocabulary(cfg, tokenizer)
    longest = 0
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        size = task.size(split)
        for index in range(num_prompts if size is None else min(size, num_prompts)):
            prompt = task.prompt(split, index)
            num_tokens = len(tokens.encode_prompt(tokenizer, prompt, cfg.task.template_options))
            if num_tokens + room > window:
                raise DataError(
                    f"prompt {prompt.prompt_id}: {num_tokens} tokens and sampling.max_new_tokens = {room} "
                    f"exceed the model's window of {window}; shorten the prompt or lower max_new_tokens"
                )
            longest = max(longest, num_tokens)
    return longest


def context_tokens(cfg: RunConfig) -> int:
    """Longest sequence of the run's model, in tokens. Raises DataError for a model directory that cannot be used."""
    if cfg.model.path and cfg.model.path != TINY_QWEN2:
        check_model(Path(cfg.model.path).expanduser().resolve())
    model = planned_model(cfg)
    assert model is not None, "checked above"
    return model.context


def _llama_config(sizes: ScratchModelConfig, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.context,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        attention_bias=False,
        mlp_bias=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _write_tiny(directory: Path, seed: int, dtype: str) -> None:
    from transformers import Qwen2Config

    tokenizer = _byte_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=TINY.hidden,
        intermediate_size=TINY.intermediate,
        num_hidden_layers=TINY.layers,
        num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.kv_heads,
        max_position_embeddings=TINY.context,
        tie_word_embeddings=TINY.tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    _write_random(config, seed, dtype, directory)
    tokenizer.save_pretrained(str(directory))


def _byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token for each byte, and the three special tokens of ChatML: 259 tokens that can spell any text."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=TINY.context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHATML
    return tokenizer


def _write_random(config: PretrainedConfig, seed: int, dtype: str, directory: Path) -> None:
    """Saves random weights from `seed` as safetensors; the caller's random state is not changed."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.to(getattr(torch, dtype)).save_pretrained(str(directory))
    readable(directory)


def _copy_model(source: Path, directory: Path) -> None:
    """Copies the small files of a model directory and links its weights, which are the only safetensors files there.

    Copies do not name Python code of the model (auto_map).
    """
    for path in weight_files(source):
        (directory / path.name).symlink_to(path)
    for item in sorted(source.iterdir()):
        if item.name.startswith("adapter_"):
            continue
        if item.is_file() and item.suffix in (".json", ".jinja", ".model", ".txt"):
            shutil.copyfile(item, directory / item.name)
    for path in (directory / "config.json", directory / "tokenizer_config.json"):
        if path.is_file() and "auto_map" in (settings := read_json(path)):
            del settings["auto_map"]  # the code is not copied: what the run exports must not name it
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_whole(directory: Path, write: Callable[[Path], None]) -> None:
    with directory_being_made(directory) as temporary:
        write(temporary)
