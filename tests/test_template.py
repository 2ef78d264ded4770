"""Chat templates under bounds: size, time and memory, at load and at each rendering."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from rlsp_async import template
from rlsp_async.config import ModelConfig, RunConfig, StageConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.model import prepare_model, read_config
from rlsp_async.tokens import encode_prompt, load_tokenizer

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LOOP, "does not end within"),
        ("{{ 9 ** (9 ** (9 ** 9)) }}", "does not end within"),
        ("{{ 'a' * 10 ** 10 }}", "needs more than"),
        ("a" * 600_000, "has 600,000 characters"),
    ],
)
def test_a_template_without_end_is_refused_in_one_sentence(
    text: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "RENDER_S", 1)
    with pytest.raises(DataError, match=sentence) as caught:
        template.check_template(text, "models/m")
    assert str(caught.value).startswith("models/m: its chat template ")


def test_a_template_that_refuses_a_conversation_is_left_to_the_prompts() -> None:
    template.check_template("{{ raise_exception('no system message') }}", "m")
    template.check_template("{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}{{ broken", "m")


@pytest.mark.timeout(120, method="thread")  # the bound is a timer of the process, and so is the other method
def test_a_rendering_ends_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = RunConfig(name="x", model=ModelConfig(path="tiny-qwen2"), stages={"s": StageConfig()})
    prepare_model(cfg, tmp_path / "m")
    tokenizer = load_tokenizer(tmp_path / "m")
    prompt = Prompt(prompt_id="p/train/3", task="p", text="long", answer="1", chat=True)
    monkeypatch.setattr(template, "RENDER_S", 1)
    tokenizer.chat_template = "{% if messages[0]['content'] == 'long' %}" + LOOP + "{% endif %}x"
    with pytest.raises(DataError, match=r"prompt p/train/3: the chat template does not end within 1 s"):
        encode_prompt(tokenizer, prompt)
    monkeypatch.setattr(template, "RENDER_S", 10)
    tokenizer.chat_template = "{{ 'ab' * 15000000 }}"
    with pytest.raises(DataError, match="makes 30,000,000 characters of it"):
        encode_prompt(tokenizer, prompt)


def test_a_rendering_that_would_fill_the_memory_is_ended(tmp_path: Path) -> None:
    prepare_model(
        RunConfig(name="x", model=ModelConfig(path="tiny-qwen2"), stages={"s": StageConfig()}), tmp_path / "m"
    )
    tokenizer = load_tokenizer(tmp_path / "m")
    before = resource.getrlimit(resource.RLIMIT_AS)
    prompt = Prompt(prompt_id="p/train/3", task="p", text="long", answer="1", chat=True)
    for text in ("{{ messages[0]['content'] * 10**10 }}", "{{ 'a' * 10**10 }}", "{{ ['a' * 10**8] * 100 | join }}"):
        tokenizer.chat_template = text
        with pytest.raises(DataError, match="prompt p/train/3: the chat template"):
            encode_prompt(tokenizer, prompt)
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    tokenizer.chat_template = "{{ messages[0]['content'] * 10**10 }}"
    with pytest.raises(DataError, match="the chat template needs more than 1024 MiB"):
        encode_prompt(tokenizer, prompt)
    tokenizer.chat_template = "{{ messages[0]['content'] * 2 }}"
    assert len(encode_prompt(tokenizer, prompt)) == 8


def test_each_of_several_templates_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_model(
        RunConfig(name="x", model=ModelConfig(path="tiny-qwen2"), stages={"s": StageConfig()}), tmp_path / "m"
    )
    (tmp_path / "m" / "chat_template.jinja").unlink(missing_ok=True)
    path = tmp_path / "m" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    monkeypatch.setattr(template, "RENDER_S", 1)
    named = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": LOOP}]
    for given, sentence in ((named, "does not end within 1 s"), (5, "its chat template is no text")):
        path.write_text(json.dumps(settings | {"chat_template": given}))
        with pytest.raises(DataError, match=sentence):
            load_tokenizer(tmp_path / "m")


def test_nested_and_huge_configurations_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ' + "[" * 200_000)
    with pytest.raises(DataError, match=r"config\.json: no valid JSON: its lists or objects are nested too deep"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"a": "b" * 17_000_000}))
    with pytest.raises(DataError, match="at most 16,000,000"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="nested too deep"):
        load_tokenizer(tmp_path)
