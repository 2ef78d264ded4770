"""The contract in `proto/` for other languages, made from `messages.py`: the JSON schema and the golden vectors.

    python -m rlsp_async.wire.contract          writes proto/schema.json, adds missing vectors to proto/golden/
    python -m rlsp_async.wire.contract --check  names the files that are out of date, exit code 1

A vector is NAME.msgpack (the bytes of one message) and NAME.json (their meaning; columns as base64). Vectors are added
and never changed: SHA256SUMS holds their digests, and `sha256sum -c` checks them.

EXAMPLES holds one example of every message, with every field filled: the newest vectors. A message that gains a field
gets its example under a new name ("hello" becomes "hello_2"). The files of the old name stay, as a promise that what
older programs send is still read.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, Union

import msgspec

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.errors import MachineError
from rlsp_async.messages import (
    PROTOCOL,
    Abandon,
    Ack,
    Batch,
    Bye,
    ChatMessage,
    Done,
    Drain,
    Failed,
    FromHub,
    FromWorker,
    Hello,
    Invite,
    Loaded,
    NewWeights,
    Ping,
    Pong,
    Probe,
    Prompt,
    Pull,
    Refuse,
    Rejected,
    Revoke,
    Rollout,
    RolloutGroup,
    SampleJob,
    Sampling,
    Status,
    StepReport,
    TrainJob,
    Verdict,
    VerdictSet,
    VerifiedGroup,
    VerifyItem,
    VerifyJob,
    WeightsRef,
    Welcome,
    Work,
    WorkerStatus,
)
from rlsp_async.wire.codec import encode

PROMPT = Prompt(
    prompt_id="ops/train/17",
    task="ops",
    text="1 1 3 4 -> 7 <think>",
    answer="7",
    index=17,
    visit=2,
    chat=True,
    system="Think.",
    source="ops",
    selector="uniform",
    propensity=0.5,
    earlier=[ChatMessage(role="user", text="2 + 2?"), ChatMessage(role="assistant", text="4")],
)
SAMPLING = Sampling(temperature=0.75, max_new_tokens=96, rollouts=1, seed=11)
ROLLOUT = Rollout(
    index=0,
    token_ids=pack_ints([5, 7, 2]),
    logprobs=pack_floats([-0.5, 0.0, -0.0625]),
    versions=pack_ints([41, -1, 42]),
    text="3 + 4",
    finish="stop",
    parent="12/3",
    root="12/0",
    depth=1,
    step_offsets=pack_ints([0, 2]),
    replayed_from="8/3",
    sampler="sampler-0",
    seconds=0.5,
    turns=pack_ints([0, 2]),
    claim={"correct": 1.0},
    ended="done",
    transcript=b"\x91\x92\xa5model\xa53 + 4",
)
GROUP = RolloutGroup(
    group_id=1234567890123,
    prompt=PROMPT,
    prompt_ids=pack_ints([1, 9]),
    sampling=SAMPLING,
    rollouts=[ROLLOUT],
    provenance="rollout",
    purpose="train",
    stage="rlsp",
)
VERDICT = Verdict(
    status="correct",
    parts={"correct": 1.0, "search_steps": 3.0},
    extracted="3 + 4",
    detail="",
    milliseconds=0.25,
    verifier="ops/1",
)
WEIGHTS = WeightsRef(
    version=42,
    uri="file:///dev/shm/rlsp-demo/v000042.safetensors",
    digest="sha256:ab12",
    num_bytes=1048576,
    probe=Probe(ids=pack_ints([1, 2, 3]), logprobs=pack_floats([-1.5, -2.0])),
    incarnation=3,
    also=["channel://learner-0/3"],
)
STATUS = Status(
    run="ops_cpu",
    stage="rlsp",
    phase="running",
    stage_step=4,
    stage_steps=40,
    step=1004,
    version=1003,
    seconds=61.5,
    counts={"issued": 64, "ready": 8},
    tokens={"generated": 40960, "trained": 32768},
    metrics={"reward": 0.5},
    workers=[
        WorkerStatus(
            worker="sampler-0",
            role="sampler",
            state="working",
            leases=16,
            credit=16,
            idle_share=0.125,
            version=1003,
            silent_s=0.25,
        )
    ],
    seconds_left=300.0,
    message="",
    evaluated=12,
    to_evaluate=256,
)

EXAMPLES: dict[str, FromWorker | FromHub] = {
    "hello_2": Hello(
        run="ops_cpu",
        role="learner",
        worker="learner-0",
        credit=1,
        proto=1,
        step=41,
        leases=[7, 9],
        holding={7: 41, 9: 42},
        seq=3,
        incarnation=1763695276000000000,
        info={"host": "a", "pid": "12"},
        yields=True,
    ),
    "ping": Ping(
        state="working",
        busy_s=0.75,
        window_s=1.0,
        metrics={"tokens": 5120.0},
        leases=[7, 9],
        version=42,
        made_by=3,
        seq=4,
    ),
    "done_groups_3": Done(lease=7, groups=[GROUP]),
    "done_verdicts": Done(lease=8, verdicts=[VerdictSet(group_id=12, verdicts=[VERDICT])]),
    "done_steps_2": Done(lease=9, steps=[StepReport(step=42, metrics={"loss": 0.125}, weights=WEIGHTS, checkpoint=32)]),
    "failed_2": Failed(lease=9, kind="data", error="ContentError: group 12: it has no token", groups=[12]),
    "loaded": Loaded(version=42, seconds=0.5, probe_error=0.000244140625),
    "rejected": Rejected(version=42, reason="digest differs"),
    "bye": Bye(reason="the run is finished"),
    "welcome_2": Welcome(
        run="ops_cpu", incarnation=2, heartbeat_s=1.0, timeout_s=10.0, weights=WEIGHTS, leases=[7], seq=3
    ),
    "pong": Pong(known=False),
    "work_sample_2": Work(
        lease=7,
        deadline_s=60.0,
        job=SampleJob(group_id=12, prompt=PROMPT, sampling=SAMPLING, purpose="evaluate", stage="rlsp"),
    ),
    "work_verify_2": Work(
        lease=8,
        deadline_s=60.0,
        job=VerifyJob(
            group_id=12,
            task="ops",
            items=[
                VerifyItem(
                    prompt="1 1 3 4 -> 7 <think>", response="3 + 4", answer="7", claim={"correct": 1.0}, ended="done"
                )
            ],
        ),
    ),
    "work_train_3": Work(
        lease=9,
        deadline_s=60.0,
        job=TrainJob(
            batch=Batch(
                stage="rlsp",
                step=42,
                groups=[VerifiedGroup(group=GROUP, verdicts=[VERDICT])],
                last_of_stage=True,
                stage_step=2,
            )
        ),
    ),
    "ack": Ack(lease=7),
    "revoke_2": Revoke(lease=7, reason="it came without its result", refused=True),
    "weights_2": NewWeights(weights=WEIGHTS),
    "drain": Drain(reason="the run is finished"),
    "pull": Pull(
        ticket="sampler-3/7",
        version=42,
        made_by=3,
        worker="sampler-3",
        kinds=["nccl", "gloo"],
        num_workers=2,
        devices=["GPU-5a0c", "GPU-77b1"],
        host="0e1a3a52-9d4f-4a39-8c1b-3f0a7e1c2d55",
        env={"NCCL_CUMEM_ENABLE": "1"},
        channel="sampler-3.1",
    ),
    "invite": Invite(
        ticket="sampler-3/7",
        worker="sampler-3",
        kind="gloo",
        channel="sampler-3.2",
        where=b"10.0.0.5:5556 9f86d081",
        world=3,
        plan=b"\x91\x95\xa1w\xa3F32\x91\x02\x07\x09",
        bucket_bytes=33554432,
        deadline_s=30.0,
    ),
    "abandon": Abandon(ticket="sampler-3/7", worker="sampler-3", reason="superseded by version 43"),
    "refuse_2": Refuse(reason="sampler-0 is at work already", fenced=True, retry_s=12.0),
    "status_2": STATUS,
}


def proto_path() -> Path:
    """The directory of the contract, in the checkout or in the wheel. Raises MachineError when it is in neither."""
    package = Path(__file__).parents[1]
    checkout, wheel = package.parent / "proto", package / "_proto"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    if wheel.is_dir():
        return wheel
    raise MachineError(f"neither {checkout} nor {wheel} is there: reinstall rlsp_async")


def make_schema() -> bytes:
    """JSON schema (2020-12) of both directions. A column has `x-column`: its numpy type, one value for each token."""
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


def make_vectors() -> dict[str, tuple[bytes, bytes]]:
    """Example name -> (its bytes, its meaning as JSON)."""
    return {name: (encode(message), as_json(message)) for name, message in EXAMPLES.items()}


def as_json(message: FromWorker | FromHub) -> bytes:
    """A message as indented JSON, columns as base64."""
    return msgspec.json.format(msgspec.json.encode(message), indent=1) + b"\n"


def find_stale(directory: Path) -> list[str]:
    """Names the files in `directory` that do not agree with the code.

    These are the schema, vectors of examples that are missing or differ, and vectors that were changed or removed.
    """
    golden = directory / "golden"
    wanted = {golden / name: content for name, content in _files().items()} | {directory / "schema.json": make_schema()}
    differing = [path for path, content in wanted.items() if not path.is_file() or path.read_bytes() != content]
    changed = [golden / name for name, digest in read_sums(directory).items() if _digest(golden / name) != digest]
    return sorted({str(path.relative_to(directory)) for path in [*differing, *changed]})


def write_contract(directory: Path) -> list[str]:
    """Writes the schema, the vectors that are missing, and their digests; returns the names of the files."""
    golden = directory / "golden"
    golden.mkdir(parents=True, exist_ok=True)
    (directory / "schema.json").write_bytes(make_schema())
    missing = {name: content for name, content in _files().items() if name not in read_sums(directory)}
    for name, content in missing.items():
        (golden / name).write_bytes(content)
        with open(golden / "SHA256SUMS", "a", encoding="ascii") as file:
            file.write(f"{_digest(golden / name)}  {name}\n")
    return ["schema.json", *missing]


def read_sums(directory: Path) -> dict[str, str]:
    """File name -> sha256 of every published vector."""
    path = directory / "golden" / "SHA256SUMS"
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


def _files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, (frame, meaning) in make_vectors().items():
        files |= {f"{name}.msgpack": frame, f"{name}.json": meaning}
    return files


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    directory = proto_path()
    if arguments == ["--check"]:
        stale = find_stale(directory)
        print(f"{directory}: " + (f"stale: {', '.join(stale)}" if stale else "agrees with messages.py"))
        return 1 if stale else 0
    print(f"{directory}: wrote {', '.join(write_contract(directory))}")
    return main(["--check"])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
