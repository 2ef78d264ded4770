"""The `rlsp` command: arguments in, text for people out. What the commands do is in the rooms below this one.

    command.py    collects the commands below, parses the arguments, turns errors into exit codes; `main` is the entry
    arguments.py  what several commands have in common: CONFIG [key=value ...]
    run.py        rlsp run
    check.py      rlsp check: the settings, what follows from them, and warnings
    service.py    rlsp replay, sampler, verifier, learner: one service as this process
    evaluate.py   rlsp eval
    export_model.py  rlsp export-model
    keys.py       rlsp keys
    grade.py      rlsp grade
    report.py     rlsp report
    audit.py      rlsp audit
    chaos.py      rlsp chaos
    tasks.py      rlsp tasks, rlsp demos
    offline.py    rlsp import, rlsp export
    clean.py      rlsp clean
    selftest.py   rlsp selftest

Each command module has `add_parser(commands)`, which names the function that carries the command out.
"""

from rlsp_async.cli.command import main

__all__ = ["main"]
