"""Fixtures of the learner's tests."""

import json

import pytest
import torch

from tests.learning.small import Shelf, tiny_config


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A tiny Llama with a tokenizer file beside it."""
    from transformers import LlamaForCausalLM

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(7)
    LlamaForCausalLM(tiny_config()).save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    return directory


@pytest.fixture
def shelf():
    return Shelf()
