"""Files of a model directory that are no files: nobody opens them, one sentence names them."""

import os
from pathlib import Path

import pytest

from rlsp_async.errors import DataError
from rlsp_async.model import read_config
from rlsp_async.model_files import MAX_JSON_BYTES, MAX_TABLE_BYTES, require_model_files
from rlsp_async.tokens import load_tokenizer


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "notes.json", "chat_template.jinja", "x.safetensors"]
)
def test_a_named_pipe_is_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is a named pipe, not a file"):
        require_model_files(tmp_path)
    if name == "config.json":
        with pytest.raises(DataError, match="is a named pipe"):
            read_config(tmp_path)
    if name == "tokenizer.json":
        with pytest.raises(DataError, match="is a named pipe"):
            load_tokenizer(tmp_path)


def test_devices_and_directories_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"vocab\.json: is a device"):
        require_model_files(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "generation_config.json").mkdir()
    with pytest.raises(DataError, match=r"generation_config\.json: is a directory"):
        require_model_files(tmp_path)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.txt").symlink_to("gone")  # nobody opens it
    require_model_files(tmp_path)
    (tmp_path / "tokenizer.json").symlink_to("../blobs/1234")
    with pytest.raises(DataError, match=r"tokenizer\.json: is a link to \.\./blobs/1234, where no file is"):
        require_model_files(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "config.json").symlink_to("config.json")
    with pytest.raises(DataError, match="is a link to config.json, where no file is"):
        read_config(tmp_path)


def test_sizes_have_bounds(tmp_path: Path) -> None:
    for name, most in (("tokenizer_config.json", MAX_JSON_BYTES), ("tokenizer.json", MAX_TABLE_BYTES)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(most)
        require_model_files(tmp_path)
        os.truncate(tmp_path / name, most + 1)
        with pytest.raises(DataError, match=f"{name}: .* bytes; a file of this name has at most"):
            require_model_files(tmp_path)
        (tmp_path / name).unlink()


def test_a_model_of_links_is_a_model_and_a_link_to_another_file_of_the_machine_is_refused(tmp_path: Path) -> None:
    """What is copied into a run, and from there into what it exports, is a file of a model."""
    for place in ("store", "cache/blobs", "cache/snapshots/1", "links"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "store" / "vocab.json").write_text("{}")
    (tmp_path / "store" / "token.json").write_text('{"secret": 1}')
    (tmp_path / "cache/blobs/7f3a").write_text("{}")
    (tmp_path / "cache/snapshots/1/tokenizer_config.json").symlink_to("../../blobs/7f3a")
    require_model_files(tmp_path / "cache/snapshots/1")
    links = tmp_path / "links"
    (links / "vocab.json").symlink_to(tmp_path / "store" / "vocab.json")
    (links / "tokenizer_config.json").symlink_to(tmp_path / "cache/snapshots/1/tokenizer_config.json")
    (links / "template.jinja").write_text("")
    (links / "chat_template.jinja").symlink_to("template.jinja")
    require_model_files(links)
    for name in ("merges.txt", "added_tokens.json", "chat.model"):
        (links / name).symlink_to(tmp_path / "store" / "token.json")
        with pytest.raises(DataError, match=rf"{name}: is a link to .*/store/token\.json, a file of another name"):
            require_model_files(links)
        (links / name).unlink()
