"""What a check says: one line, and the rows that offend."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ROWS_SHOWN = 20

Outcome = Literal["ok", "violated", "not applicable"]


class Finding(msgspec.Struct, kw_only=True):
    """One guarantee. Example: Finding(guarantee="G4", title="...", outcome="ok", figures="1,024 groups")."""

    guarantee: str
    title: str
    outcome: Outcome = "ok"
    figures: str = ""
    """What was looked at, in words."""
    num_offending: int = 0
    rows: list[dict[str, Any]] = []
    """The first ROWS_SHOWN that offend; each says in `what` what is wrong."""


class Offences:
    """Collects what offends against one guarantee; keeps the first rows, counts all."""

    def __init__(self, guarantee: str, title: str) -> None:
        self.guarantee, self.title = guarantee, title
        self._rows: list[dict[str, Any]] = []
        self._num = 0

    def add(self, what: str, **where: Any) -> None:
        """One offending row."""
        self._num += 1
        if self._num <= ROWS_SHOWN:
            self._rows.append({**where, "what": what})

    def finding(self, figures: str, *, applies: bool = True) -> Finding:
        """The verdict on this guarantee."""
        outcome: Outcome = "violated" if self._num else "ok" if applies else "not applicable"
        return Finding(
            guarantee=self.guarantee,
            title=self.title,
            outcome=outcome,
            figures=figures,
            num_offending=self._num,
            rows=self._rows,
        )
