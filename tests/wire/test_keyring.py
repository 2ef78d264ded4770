"""Keys on disk: modes, names, and which files a process needs."""

import os
import shutil

import pytest

from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.wire.keyring import (
    add_worker_key,
    create_keyring,
    read_allowed,
    read_hub_keys,
    read_worker_keys,
    revoke_key,
)
from tests.wire.rings import ROLES, ring


def mode(path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_ring_is_private_from_the_start_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        ring(tmp_path / "k")
    finally:
        os.umask(before)
    assert mode(tmp_path / "k") == 0o700
    assert {path.name: mode(path) for path in (tmp_path / "k").iterdir()} == {
        "hub.secret": 0o600,
        "hub.public": 0o644,
        "allowed.json": 0o644,
        **{f"{role}.secret": 0o600 for role in ROLES},
    }


def test_each_process_needs_exactly_its_files(tmp_path):
    whole, hub, worker = tmp_path / "k", tmp_path / "hub", tmp_path / "worker"
    ring(whole)
    for directory, names in ((hub, ("hub.secret", "allowed.json")), (worker, ("hub.public", "verifier.secret"))):
        directory.mkdir()
        for name in names:
            shutil.copy2(whole / name, directory)
    assert read_hub_keys(str(hub)).keys == read_hub_keys(str(whole)).keys
    keys = read_worker_keys(str(worker), "verifier", "verifier-3")
    assert keys == read_worker_keys(str(whole), "verifier", "verifier-0")
    assert keys.server == read_hub_keys(str(hub)).keys.public
    for directory, name in (
        (hub, "hub.secret"),
        (hub, "allowed.json"),
        (worker, "hub.public"),
        (worker, "verifier.secret"),
    ):
        (directory / name).rename(directory / "away")
        with pytest.raises(MachineError, match=rf"{name}: No such file"):
            read_hub_keys(str(hub)) if directory == hub else read_worker_keys(str(worker), "verifier", "verifier-3")
        (directory / "away").rename(directory / name)


def test_a_workers_own_key_comes_before_its_roles(tmp_path):
    ring(tmp_path)
    add_worker_key(tmp_path, "sampler-9", "sampler")
    own, shared = (read_worker_keys(str(tmp_path), "sampler", name) for name in ("sampler-9", "sampler-8"))
    listed = read_allowed(tmp_path).keys
    assert (listed[own.public.decode()].name, listed[own.public.decode()].worker) == ("sampler-9", True)
    assert (listed[shared.public.decode()].name, listed[shared.public.decode()].worker) == ("sampler", False)


def test_no_setting_no_keys():
    assert read_hub_keys("") is None and read_worker_keys("", "sampler", "s") is None


@pytest.mark.parametrize("name", ["hub.secret", "sampler.secret"])
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_secret_that_others_can_read_or_change_is_refused_with_the_chmod(tmp_path, name, bits):
    ring(tmp_path)
    (tmp_path / name).chmod(bits)
    with pytest.raises(MachineError, match=rf"{name} can be read by other users \(mode 0{bits:o}\): chmod 600 "):
        read_hub_keys(str(tmp_path)) if name == "hub.secret" else read_worker_keys(str(tmp_path), "sampler", "s")


@pytest.mark.parametrize("name", ["hub.public", "allowed.json"])
def test_a_public_file_that_others_can_change_is_refused(tmp_path, name):
    ring(tmp_path)
    (tmp_path / name).chmod(0o666)
    with pytest.raises(MachineError, match=rf"{name} can be changed by other users \(mode 0666\): chmod 644 "):
        read_hub_keys(str(tmp_path)) if name == "allowed.json" else read_worker_keys(str(tmp_path), "sampler", "s")


@pytest.mark.parametrize(
    ("owner", "bits", "fit"),
    [
        (0, 0o440, True),
        (0, 0o460, False),
        (0, 0o444, False),
        (0, 0o404, False),
        (4242, 0o600, False),
        (1000, 0o400, True),
        (1000, 0o440, False),
    ],
)
def test_kubernetes_hands_a_secret_over_through_the_group_of_a_file_of_root(tmp_path, monkeypatch, owner, bits, fit):
    ring(tmp_path)
    path = tmp_path / "sampler.secret"
    path.chmod(bits)
    real = os.stat(path)
    fake = os.stat_result((real.st_mode, *real[1:4], owner, *real[5:]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(type(path), "stat", lambda self, **_: fake if self == path else os.stat(self))
    if fit:
        assert read_worker_keys(str(tmp_path), "sampler", "s")
    else:
        with pytest.raises(MachineError, match="other users|another user"):
            read_worker_keys(str(tmp_path), "sampler", "s")


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 39, b"x" * 41, b"~" * 40, "\u00e9".encode() * 20, bytes(40)])
def test_a_file_without_a_key_is_refused_without_showing_what_is_in_it(tmp_path, content):
    ring(tmp_path)
    (tmp_path / "sampler.secret").write_bytes(content)
    with pytest.raises(MachineError, match=r"sampler\.secret holds no key of 40 characters") as refused:
        read_worker_keys(str(tmp_path), "sampler", "s")
    assert len(content) < 5 or content.decode("latin-1") not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"keys": {"a": {"name": "x", "role": "sampler"}}}',
        '{"keys": {"' + "a" * 40 + '": {"name": "x", "role": "king"}}}',
        '{"more": 1}',
    ],
)
def test_a_damaged_list_is_refused(tmp_path, content):
    ring(tmp_path)
    (tmp_path / "allowed.json").write_text(content)
    with pytest.raises(MachineError, match=r"allowed\.json (is no list of keys|lists a key)"):
        read_hub_keys(str(tmp_path))


def test_nothing_is_overwritten(tmp_path):
    ring(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="holds keys already and they are not overwritten"):
        create_keyring(tmp_path, ["sampler"])
    add_worker_key(tmp_path, "s-1", "sampler")
    with pytest.raises(ConfigError, match=r"has a key 's-1' already .*`rlsp keys revoke"):
        add_worker_key(tmp_path, "s-1", "sampler")
    (tmp_path / "s-2.secret").write_text("a secret that no list names")
    with pytest.raises(ConfigError, match=r"s-2\.secret is there already and is not overwritten"):
        add_worker_key(tmp_path, "s-2", "sampler")
    assert {name: (tmp_path / name).read_bytes() for name in before if name != "allowed.json"} == {
        name: content for name, content in before.items() if name != "allowed.json"
    }


@pytest.mark.parametrize("name", ["", "hub", "sampler", "../x", "a/b", "a b", ".x", "x" * 129, "\u00e9"])
def test_a_name_that_cannot_name_a_file_is_refused(tmp_path, name):
    ring(tmp_path)
    with pytest.raises(ConfigError, match="cannot name a key|is the name of a role's key"):
        add_worker_key(tmp_path, name, "sampler")


def test_an_unknown_role_and_a_missing_ring_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no role 'king': a key is for one of sampler, verifier, learner, observer"):
        create_keyring(tmp_path / "k", ["sampler", "king"])
    assert not (tmp_path / "k").exists(), "nothing half-made"
    with pytest.raises(ConfigError, match=r"has no hub.secret: make the hub's keys first"):
        add_worker_key(tmp_path, "s-1", "sampler")
    with pytest.raises(ConfigError, match=r"replay\.keys = '/no/such' is no directory: make keys with `rlsp keys new"):
        read_hub_keys("/no/such")


def test_a_revoked_name_is_off_the_list_its_secret_gone_and_free_again(tmp_path):
    ring(tmp_path)
    add_worker_key(tmp_path, "s-1", "sampler")
    first = read_worker_keys(str(tmp_path), "sampler", "s-1").public.decode()
    assert revoke_key(tmp_path, "s-1").role == "sampler"
    assert first not in read_allowed(tmp_path).keys and not (tmp_path / "s-1.secret").exists()
    with pytest.raises(ConfigError, match=r"lists no key 's-1' \(it lists: learner, observer, sampler, verifier\)"):
        revoke_key(tmp_path, "s-1")
    add_worker_key(tmp_path, "s-1", "sampler")
    assert first not in read_allowed(tmp_path).keys
