"""What every check reads, and what it returns.

History       a run's journal, read only, as of one moment: the hub may go on writing meanwhile
Violations    collects what violates one guarantee, and makes the Finding of it
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, StepReport, Verdict
from rlsp_async.replay.records import GroupRecord, Manifest
from rlsp_async.replay.sql import SCHEMA_VERSION

_record = msgspec.msgpack.Decoder(GroupRecord).decode
_body = msgspec.msgpack.Decoder(RolloutGroup).decode
_verdicts = msgspec.msgpack.Decoder(list[Verdict]).decode
_report = msgspec.msgpack.Decoder(StepReport).decode
_manifest = msgspec.msgpack.Decoder(Manifest).decode

_GROUPS = """SELECT g.group_id, g.purpose, g.provenance, g.stage, g.state, g.reason, g.num_tokens, g.uses, g.step,
    g.dead, g.oldest, g.newest, g.num_rollouts, g.num_verdicts, g.body_digest, g.why, g.head, b.body, v.verdicts
    FROM groups g LEFT JOIN bodies b USING (group_id) LEFT JOIN verdicts v USING (group_id) ORDER BY g.group_id"""


ROWS_SHOWN = 20

Outcome = Literal["ok", "violated", "not applicable"]


class GroupRow(NamedTuple):
    """One row of `groups`, with the stored bytes of its body and verdicts (None: pruned, or not there yet)."""

    group_id: int
    purpose: str
    provenance: str
    stage: str
    state: str
    reason: str
    num_tokens: int
    uses: int
    step: int
    dead: int
    oldest: int
    newest: int
    num_rollouts: int
    num_verdicts: int
    body_digest: bytes | None
    why: str
    head: bytes
    body: bytes | None
    verdicts: bytes | None

    @property
    def is_rollouts(self) -> bool:
        """Whether the group was sampled by a model (and is neither a demonstration nor imported)."""
        return self.provenance == "rollout"


class StepRow(NamedTuple):
    """One row of `steps`, with its decoded report (None: it cannot be decoded)."""

    step: int
    stage: str
    checkpoint: int
    published: int
    incarnation: int
    digest: str
    at_s: float
    report: StepReport | None


class Amendment(NamedTuple):
    """A decision to take groups out of a batch that the learner could not train."""

    step: int
    groups: list[int]
    why: str
    former: Manifest
    """The batch before the decision."""


class History:
    """A snapshot of a journal."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        """Opens the journal.

        Args:
            path: a journal, or the directory of a run.
            timeout_s: how long a locked file may delay a query.

        Raises: DataError, in one sentence, for a file that is no journal of this version.
        """
        journal = path / "journal.sqlite" if path.is_dir() else path
        if not journal.is_file():
            raise DataError(f"{path} is no run: there is no {journal.name} in it; name a directory like runs/ops_cpu")
        self.path = journal
        self.directory = journal.parent
        try:
            self.db = sqlite3.connect(
                f"file:{quote(str(journal))}?mode=ro", uri=True, isolation_level=None, timeout=timeout_s
            )
            self.db.execute("BEGIN")
            self.run: dict[str, str] = dict(self.db.execute("SELECT key, value FROM run").fetchall())
        except sqlite3.Error as e:
            raise DataError(f"{journal} cannot be read as a journal ({e}): it is damaged, or another file") from None
        if self.run.get("schema") != str(SCHEMA_VERSION):
            raise DataError(
                f"{journal} was written by another version of rlsp_async (schema "
                f"{self.run.get('schema', '1')}, this one reads {SCHEMA_VERSION}): audit it with that one"
            )
        try:
            self.cfg: RunConfig = msgspec.json.decode(self.run["config"], type=RunConfig)
        except (msgspec.DecodeError, KeyError) as e:
            raise DataError(f"{journal}: the settings in it cannot be read ({e}): it is damaged") from None
        self.damaged: list[tuple[str, int]] = []
        """Rows that `manifests` could not decode, as (kind, step)."""
        self.forgot_to = int(self.run.get("forgot_to", 0))

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows of a small query. Raises DataError when the file is damaged."""
        try:
            return self.db.execute(query, values).fetchall()
        except sqlite3.Error as e:
            raise DataError(f"{self.path} cannot be read ({e}): it is damaged; restore it from a copy") from None

    def groups(self) -> Iterator[GroupRow]:
        """Every group that was ever issued, by id, with what is kept of it."""
        try:
            for row in self.db.execute(_GROUPS):
                yield GroupRow(*row)
        except sqlite3.Error as e:
            raise DataError(f"{self.path} cannot be read ({e}): it is damaged; restore it from a copy") from None

    def amendments(self) -> list[Amendment]:
        """Every decision to take groups out of a batch, in order; none in a journal that has no such table."""
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'amendments'"):
            return []
        found = []
        for step, groups, why, blob in self.rows("SELECT step, groups, why, former FROM amendments ORDER BY seq"):
            try:
                taken = msgspec.json.decode(groups, type=list[int])
                found.append(Amendment(step, taken, why, _manifest(blob)))
            except msgspec.DecodeError:
                self.damaged.append(("amendment", step))
        return found

    def manifests(self, as_chosen: bool = False) -> Iterator[Manifest]:
        """Every batch that was ever chosen, in order, as it was trained; `as_chosen`: before groups were taken out."""
        former = {one.step: one.former for one in reversed(self.amendments())} if as_chosen else {}
        for step, blob in self.rows("SELECT step, manifest FROM manifests ORDER BY step"):
            if step in former:
                yield former[step]
                continue
            try:
                yield _manifest(blob)
            except msgspec.DecodeError:
                self.damaged.append(("manifest", step))

    def steps(self) -> list[StepRow]:
        """Every step that was reported, in order."""
        query = "SELECT step, stage, checkpoint, published, incarnation, digest, at_s, report FROM steps ORDER BY step"
        return [StepRow._make([*row[:-1], _report_of(row[-1])]) for row in self.rows(query)]

    def newest_step(self) -> int:
        """The newest step that was reported; 0 before the first."""
        [(step,)] = self.rows("SELECT max(step) FROM steps")
        return int(step or 0)

    def last_step_of(self) -> dict[str, int]:
        """The last step of each stage."""
        last, total = {}, 0
        for name, stage in self.cfg.stages.items():
            total += stage.steps
            last[name] = total
        return last

    def close(self) -> None:
        """Ends the snapshot. Idempotent."""
        self.db.close()


def _report_of(blob: bytes) -> StepReport | None:
    try:
        return _report(blob)
    except msgspec.DecodeError:
        return None


def decoded(row: GroupRow) -> tuple[GroupRecord | None, RolloutGroup | None, list[Verdict] | None, str]:
    """Record, body and verdicts of a row, and an error text when one cannot be decoded (empty: all can)."""
    try:
        return (
            _record(row.head),
            _body(row.body) if row.body is not None else None,
            _verdicts(row.verdicts) if row.verdicts is not None else None,
            "",
        )
    except msgspec.DecodeError as e:
        return None, None, None, str(e)


# --- what a check returns --------------------------------------------------------------------------------------------


class Finding(msgspec.Struct, kw_only=True):
    """The result for one guarantee. Example: Finding(guarantee="G4", title="...", figures="1,024 groups")."""

    guarantee: str
    title: str
    outcome: Outcome = "ok"
    figures: str = ""
    """What was examined, in words."""
    num_offending: int = 0
    rows: list[dict[str, Any]] = []
    """The first ROWS_SHOWN offending rows; `what` of each says what is wrong."""


class Violations:
    """Collects what violates one guarantee: keeps the first rows, counts all."""

    def __init__(self, guarantee: str, title: str) -> None:
        self.guarantee, self.title = guarantee, title
        self._rows: list[dict[str, Any]] = []
        self._num = 0

    def add(self, what: str, **where: Any) -> None:
        """Adds one row. `where` says which row, `what` says what is wrong with it."""
        self._num += 1
        if self._num <= ROWS_SHOWN:
            self._rows.append({**where, "what": what})

    def finding(self, figures: str, *, applies: bool = True) -> Finding:
        """The verdict on this guarantee. `applies` is False when the run holds nothing that the guarantee is about."""
        outcome: Outcome = "violated" if self._num else "ok" if applies else "not applicable"
        return Finding(
            guarantee=self.guarantee,
            title=self.title,
            outcome=outcome,
            figures=figures,
            num_offending=self._num,
            rows=self._rows,
        )
