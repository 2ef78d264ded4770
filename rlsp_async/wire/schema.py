"""Writes what `proto/` shows to other languages, from `messages.py`: the JSON schema and the golden vectors.

    python -m rlsp_async.wire.schema          write proto/schema.json, add missing vectors to proto/golden/
    python -m rlsp_async.wire.schema --check  say what is stale, exit code 1

A vector is NAME.msgpack (the bytes of one message) and NAME.json (what they mean; columns as base64). Vectors are only
ever added, never changed: SHA256SUMS holds their digests and `sha256sum -c` checks them.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, Union, get_args

import msgspec

from rlsp_async.errors import MachineError
from rlsp_async.messages import PROTOCOL, FromHub, FromWorker
from rlsp_async.wire.codec import encode
from rlsp_async.wire.examples import EXAMPLES


def proto_path() -> Path:
    """The directory of the contract: in the checkout, else in the wheel. Raises MachineError when it is in neither."""
    package = Path(__file__).parents[1]
    checkout, wheel = package.parent / "proto", package / "_proto"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    if wheel.is_dir():
        return wheel
    raise MachineError(f"neither {checkout} nor {wheel} is there: reinstall rlsp_async")


def schema() -> bytes:
    """JSON schema (2020-12) of both directions. Columns carry `x-column`: their numpy type, one value a token."""
    kinds = [Union[FromWorker], Union[FromHub]]  # noqa: UP007  a union from a variable
    (worker, hub), definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"rlsp_async wire protocol {PROTOCOL}",
        "description": "Messages are msgpack maps of this shape; byte strings stand here as base64. See README.md.",
        "FromWorker": worker,
        "FromHub": hub,
        "$defs": definitions,
    }
    return msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=1) + b"\n"


def vectors() -> dict[str, tuple[bytes, bytes]]:
    """Of each example its bytes and its meaning as JSON."""
    return {name: (encode(message), as_json(message)) for name, message in EXAMPLES.items()}


def as_json(message: FromWorker | FromHub) -> bytes:
    """A message for people: indented JSON, columns as base64."""
    return msgspec.json.format(msgspec.json.encode(message), indent=1) + b"\n"


def message_kinds() -> list[type[msgspec.Struct]]:
    """Every message type of both directions."""
    return [*get_args(FromWorker), *get_args(FromHub)]


def stale(directory: Path) -> list[str]:
    """What in `directory` does not agree with the code: the schema, an example that is no vector yet or another one, a
    vector that was changed or removed."""
    golden = directory / "golden"
    wanted = {golden / name: content for name, content in _files().items()} | {directory / "schema.json": schema()}
    differing = [path for path, content in wanted.items() if not path.is_file() or path.read_bytes() != content]
    changed = [golden / name for name, digest in sums(directory).items() if _digest(golden / name) != digest]
    return sorted({str(path.relative_to(directory)) for path in [*differing, *changed]})


def write(directory: Path) -> list[str]:
    """Writes the schema and the vectors that are missing, and their digests; returns the names of what it wrote."""
    golden = directory / "golden"
    golden.mkdir(parents=True, exist_ok=True)
    (directory / "schema.json").write_bytes(schema())
    missing = {name: content for name, content in _files().items() if name not in sums(directory)}
    for name, content in missing.items():
        (golden / name).write_bytes(content)
        with open(golden / "SHA256SUMS", "a", encoding="ascii") as file:
            file.write(f"{_digest(golden / name)}  {name}\n")
    return ["schema.json", *missing]


def sums(directory: Path) -> dict[str, str]:
    """File name -> sha256 of every vector that was ever published."""
    path = directory / "golden" / "SHA256SUMS"
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


def _files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, (frame, meaning) in vectors().items():
        files |= {f"{name}.msgpack": frame, f"{name}.json": meaning}
    return files


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def main(arguments: list[str]) -> int:
    """The command."""
    directory = proto_path()
    if arguments == ["--check"]:
        found = stale(directory)
        print(f"{directory}: " + (f"stale: {', '.join(found)}" if found else "agrees with messages.py"))
        return 1 if found else 0
    print(f"{directory}: wrote {', '.join(write(directory))}")
    return main(["--check"])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
