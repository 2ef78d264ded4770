"""`rlsp keys`, `rlsp check` and `rlsp run` on keys, as a user meets them."""

from pathlib import Path

import pytest

from rlsp_async.cli import main
from rlsp_async.config import load
from rlsp_async.runner.run import resolve

CONFIG = str(Path(__file__).parents[2] / "launch/configs/ops_cpu_smoke.toml")
OPEN = "replay.address=tcp://0.0.0.0:5999"


def secrets(directory) -> list[str]:
    return [path.read_text().strip() for path in directory.glob("*.secret")]


def test_new_says_which_files_go_where_and_shows_no_secret(tmp_path, capsys):
    ring = tmp_path / "k"
    assert main(["keys", "new", str(ring), "--roles", "sampler, verifier"]) == 0
    said = capsys.readouterr().out
    assert f"hub.secret allowed.json; run it with replay.keys={ring}" in said
    assert "hub.public sampler.secret" in said and "hub.public verifier.secret" in said and "learner" not in said
    assert main(["keys", "new", str(ring), "--worker", "sampler-9", "--role", "sampler"]) == 0
    assert main(["keys", "list", str(ring)]) == 0
    said += capsys.readouterr().out
    assert "sampler-9               sampler   this worker alone" in said and "3 keys are let in" in said
    assert main(["keys", "revoke", str(ring), "sampler-9"]) == 0
    said += capsys.readouterr().out
    assert len(secrets(ring)) == 3 and not [secret for secret in secrets(ring) if secret in said]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new", "DIR"], "holds keys already and they are not overwritten"),
        (["new", "DIR", "--worker", "s-1"], "needs both --worker NAME and --role ROLE"),
        (["new", "DIR", "--role", "sampler"], "needs both --worker NAME and --role ROLE"),
        (["new", "DIR", "--worker", "s-1", "--role", "sampler", "--roles", "learner"], "and no --roles"),
        (["new", "OTHER", "--roles", "king"], "no role 'king'"),
        (["revoke", "DIR", "nobody"], "lists no key 'nobody'"),
        (["list", "OTHER"], "No such file or directory; `rlsp keys new` makes keys"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(tmp_path, capsys, words, says):
    assert main(["keys", "new", str(tmp_path / "k")]) == 0
    there = {"DIR": str(tmp_path / "k"), "OTHER": str(tmp_path / "o")}
    assert main(["keys", *(there.get(word, word) for word in words)]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_open_address_without_keys_is_refused_before_anything_is_written(tmp_path, capsys, command):
    assert main([command, CONFIG, OPEN, f"runs_dir={tmp_path}/runs"]) == 2
    assert 'make keys with `rlsp keys new keys` and set replay.keys = "keys"' in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_check_accepts_keys_refuses_unfit_ones_and_warns_of_absent_ones(tmp_path, capsys):
    ring = tmp_path / "k"
    main(["keys", "new", str(ring)])
    assert main(["check", CONFIG, OPEN, f"replay.keys={ring}"]) == 0
    assert "replay.keys" in capsys.readouterr().out
    (ring / "hub.secret").chmod(0o644)
    assert main(["check", CONFIG, OPEN, f"replay.keys={ring}"]) == 2
    assert f"chmod 600 {ring}/hub.secret" in capsys.readouterr().err
    assert main(["check", CONFIG, OPEN, f"replay.keys={tmp_path}/none"]) == 0
    assert f"warning: replay.keys: {tmp_path}/none: not on this machine" in capsys.readouterr().out


def test_a_run_reads_every_key_that_it_needs_before_it_begins(tmp_path, capsys):
    ring = tmp_path / "k"
    words = ["run", CONFIG, OPEN, f"runs_dir={tmp_path}/runs", f"replay.keys={ring}"]
    assert main(words) == 2
    assert "is no directory: make keys with `rlsp keys new" in capsys.readouterr().err
    main(["keys", "new", str(ring), "--roles", "learner,sampler,verifier"])
    assert main(words) == 2
    assert "observer.secret: No such file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_services_find_the_keys_wherever_they_start(tmp_path, monkeypatch):
    cfg = load(CONFIG, ["replay.keys=k"])
    monkeypatch.chdir(tmp_path)
    assert resolve(cfg).replay.keys == str(tmp_path / "k")
    assert resolve(load(CONFIG, [])).replay.keys == ""
