"""The `rlsp` command: arguments in, text for people out. Everything that it does stands in the rooms below it.

command.py    the parser and the dispatch; `main` is the entry point
show.py       `rlsp report` and `rlsp eval`: tables
tasks.py      `rlsp tasks` and `rlsp demos`
"""

from rlsp_async.cli.command import main

__all__ = ["main"]
