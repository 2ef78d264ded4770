"""The contract for other languages: schema and vectors agree with the code, and old vectors are still read."""

import json
import re
import subprocess
import sys

import msgpack
import msgspec
import pytest

from rlsp_async.messages import FromHub, FromWorker
from rlsp_async.wire import contract
from rlsp_async.wire.codec import decode_from_hub, decode_from_worker, encode
from rlsp_async.wire.contract import EXAMPLES

PROTO = contract.proto_path()
NAMES = sorted(path.stem for path in (PROTO / "golden").glob("*.msgpack"))


def read(name: str) -> tuple[bytes, bytes]:
    return ((PROTO / "golden" / f"{name}.msgpack").read_bytes(), (PROTO / "golden" / f"{name}.json").read_bytes())


def from_json(meaning: bytes) -> FromWorker | FromHub:
    tags = {kind.__struct_config__.tag for kind in FromWorker.__args__}
    return msgspec.json.decode(meaning, type=FromWorker if json.loads(meaning)["type"] in tags else FromHub)


def test_the_committed_files_agree_with_messages_py():
    assert contract.find_stale(PROTO) == []


def test_every_message_has_a_vector_and_every_job_and_result():
    assert {type(message) for message in EXAMPLES.values()} == {*FromWorker.__args__, *FromHub.__args__}
    assert set(EXAMPLES) <= set(NAMES)
    assert {"work_sample_2", "work_verify_2", "work_train_3", "done_groups_3", "done_verdicts", "done_steps_2"} <= set(
        EXAMPLES
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_of_every_vector_ever_published_mean_what_its_json_says(name):
    frame, meaning = read(name)
    message = from_json(meaning)
    decode = decode_from_worker if isinstance(message, FromWorker) else decode_from_hub
    assert decode(frame) == message


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_newest_vectors_encode_back_to_the_same_bytes(name):
    frame, meaning = read(name)
    assert encode(from_json(meaning)) == frame
    assert encode(EXAMPLES[name]) == frame


@pytest.mark.parametrize("name", NAMES)
def test_the_independent_msgpack_package_reads_the_same_values(name):
    frame, meaning = read(name)
    assert plain(msgpack.unpackb(frame, strict_map_key=False)) == json.loads(meaning)


def plain(value):
    """Columns as base64 and keys as strings, as in the JSON."""
    match value:
        case bytes():
            return msgspec.json.decode(msgspec.json.encode(value))
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def test_a_changed_vector_a_removed_one_and_an_old_schema_are_noticed(tmp_path):
    contract.write_contract(tmp_path)
    assert contract.find_stale(tmp_path) == []
    (tmp_path / "golden" / "ack.json").write_text("{}")
    (tmp_path / "golden" / "bye.msgpack").unlink()
    (tmp_path / "schema.json").write_text("{}")
    assert contract.find_stale(tmp_path) == ["golden/ack.json", "golden/bye.msgpack", "schema.json"]
    assert contract.write_contract(tmp_path) == ["schema.json"]  # vectors are only ever added


def test_columns_are_marked_in_the_schema():
    document = json.loads((PROTO / "schema.json").read_bytes())
    columns = document["$defs"]["Rollout"]["properties"]
    assert columns["token_ids"]["x-column"] == "<i4"
    assert columns["logprobs"]["x-column"] == "<f4"
    assert len(document["FromWorker"]["anyOf"]) == 10
    assert len(document["FromHub"]["anyOf"]) == 12


def test_the_prose_names_every_message():
    prose = (PROTO / "README.md").read_text()
    tags = [kind.__struct_config__.tag for kind in (*FromWorker.__args__, *FromHub.__args__)]
    assert [tag for tag in tags if not re.search(rf"^(### |- )[^\n]*`{tag}`", prose, re.MULTILINE)] == []


def test_the_command_says_that_all_is_current():
    done = subprocess.run([sys.executable, "-m", "rlsp_async.wire.contract", "--check"], capture_output=True, text=True)
    assert (done.returncode, "agrees with messages.py" in done.stdout) == (0, True), done.stderr
