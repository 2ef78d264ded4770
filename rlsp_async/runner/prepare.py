"""Makes the directory of a run: checks everything, then writes RUN whole or not at all.

    python -m rlsp_async.runner.prepare RUN < config.toml

`rlsp run` starts this as a process of its own: it loads transformers and torch to try the tokenizer and to build the
model, and that memory is free again when the process ends.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.errors import MachineError, UserError
from rlsp_async.files import directory_being_made
from rlsp_async.model import TINY_QWEN2, write_longest_prompt
from rlsp_async.preflight import inputs, references
from rlsp_async.tasks import fitted
from rlsp_async.weights.place import remove_published


def prepare(cfg: RunConfig, directory: Path) -> None:
    """Checks modules, data and model, then writes RUN: config.toml, data.json, rows.json, prompts.json, probe.json,
    model/, logs/.

    Raises UserError, and leaves nothing behind.
    """
    from rlsp_async.model import prepare_model
    from rlsp_async.weights.probe import write_initial_probe

    inputs.check_modules(cfg)
    inputs.check_data(cfg)
    references.refuse_unreadable(cfg, references.judge_references(cfg, _say, references.RUN_BUDGET_S))
    try:
        with directory_being_made(directory) as made:
            prepare_model(cfg, made / "model")
            for sentence in inputs.model_warnings(cfg):
                _say(sentence)
            measured = inputs.measure(cfg, made / "model", _say)
            assert measured is not None, "RUN/model has a tokenizer"
            if measured.changes.changes_anything:
                (made / fitted.FILE).write_bytes(msgspec.json.encode(measured.changes))
                for sentence in measured.sentences:
                    _say(sentence)
            write_longest_prompt(made, measured.expected)
            if cfg.model.path not in ("", TINY_QWEN2):
                loaded = inputs.check_loading(cfg, made / "model", measured.expected)
                write_initial_probe(made, loaded.probe)
            (made / "logs").mkdir()
            (made / "config.toml").write_text(config.to_toml(cfg), encoding="utf-8")
            if overlap := inputs.find_overlap(cfg):
                (made / "data.json").write_bytes(msgspec.json.format(msgspec.json.encode(overlap)))
            remove_published(cfg)  # versions of a removed run of this name: newer by number, they would outlive ours
    except OSError as e:
        raise MachineError(f"{directory}: cannot be written: {e.strerror or e}") from None


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def main() -> int:
    """Reads the settings from stdin; the only argument is the directory. Exit code 2 with one line on stderr."""
    try:
        table = tomllib.loads(sys.stdin.read())
        prepare(config.convert(table, RunConfig, "settings"), Path(sys.argv[1]))
    except UserError as e:
        print(f"rlsp: {e}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
