"""Keys on disk: a directory with one file for each secret, and the list of allowed public keys.

    DIR/            0700
      hub.secret    0600  the hub's                     needed by the hub only
      hub.public          the hub's, for workers        needed by every worker
      NAME.secret   0600  one worker's, or one role's   needed by that worker only
      allowed.json        public key -> name, role      needed by the hub only

A hub needs `hub.secret` and `allowed.json`; a worker `hub.public` and one secret: WORKER.secret, else ROLE.secret.
No secret is ever printed or logged. A secret that other users can read, and a public file that other users can change,
is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import get_args

import msgspec
import zmq

from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.files import replace_file
from rlsp_async.messages import Role

ROLES: tuple[Role, ...] = get_args(Role)
HUB = "hub"
ALLOWED = "allowed.json"
KEY_CHARACTERS = 40
NAME_CHARACTERS = 128
NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")

SECRET_MODE, PUBLIC_MODE, DIRECTORY_MODE = 0o600, 0o644, 0o700


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A CURVE key pair in Z85 (40 bytes each), and for a worker the public key of its hub."""

    public: bytes
    secret: bytes
    server: bytes = b""
    """Empty at the hub itself."""

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret=..., server={self.server!r})"


class AllowedKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One allowed key."""

    name: str
    role: Role
    worker: bool = False
    """True: the key speaks for the worker of this name only. False: for every worker of its role."""


class HubKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub needs: its own keys, and the path of the list of allowed keys."""

    keys: Keys
    allowed: Path


class AllowFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of allowed.json: public key -> entry."""

    keys: dict[str, AllowedKey] = {}


# --- making and revoking -------------------------------------------------------------------------------------------


def create_keyring(directory: Path, roles: list[str]) -> list[AllowedKey]:
    """Makes a key pair for the hub and one for each role. Raises UserError when the directory has keys already."""
    if (directory / f"{HUB}.secret").exists() or (directory / ALLOWED).exists():
        raise ConfigError(
            f"{directory} holds keys already and they are not overwritten: choose another directory, "
            f"or add one worker with `rlsp keys new {directory} --worker NAME --role ROLE`"
        )
    entries = [AllowedKey(name=role, role=parse_role(role)) for role in dict.fromkeys(roles)]
    _make_directory(directory)
    public, secret = zmq.curve_keypair()
    _write(directory / f"{HUB}.secret", secret + b"\n", SECRET_MODE)
    _write(directory / f"{HUB}.public", public + b"\n", PUBLIC_MODE)
    _write_allowed(directory, AllowFile())
    for entry in entries:
        _add(directory, entry)
    return entries


def add_worker_key(directory: Path, worker: str, role: str) -> AllowedKey:
    """Makes a key pair that speaks for one worker only. Raises UserError when the name is taken."""
    if not worker or not set(worker) <= NAME_SIGNS or len(worker) > NAME_CHARACTERS or worker.startswith("."):
        raise ConfigError(f"{worker!r} cannot name a key: use letters, digits, '-', '_' and '.', like sampler-9")
    if worker == HUB or worker in ROLES:
        raise ConfigError(f"{worker!r} is the name of a role's key; call the worker {worker}-0, for example")
    if not (directory / f"{HUB}.secret").exists():
        raise ConfigError(f"{directory} has no hub.secret: make the hub's keys first, with `rlsp keys new {directory}`")
    entry = AllowedKey(name=worker, role=parse_role(role), worker=True)
    _add(directory, entry)
    return entry


def revoke_key(directory: Path, name: str) -> AllowedKey:
    """Takes a key off the list and removes its secret; a running hub notices within a second. Raises ConfigError."""
    listed = read_allowed(directory)
    key = next((key for key, entry in listed.keys.items() if entry.name == name), None)
    if key is None:
        names = ", ".join(sorted(entry.name for entry in listed.keys.values())) or "none"
        raise ConfigError(f"{directory / ALLOWED} lists no key {name!r} (it lists: {names})")
    _write_allowed(directory, AllowFile(keys={k: entry for k, entry in listed.keys.items() if k != key}))
    (directory / f"{name}.secret").unlink(missing_ok=True)
    return listed.keys[key]


def parse_role(role: str) -> Role:
    """The role of that name. Raises ConfigError."""
    for known in ROLES:
        if role == known:
            return known
    raise ConfigError(f"no role {role!r}: a key is for one of {', '.join(ROLES)}")


def _add(directory: Path, entry: AllowedKey) -> None:
    listed = read_allowed(directory)
    if any(other.name == entry.name for other in listed.keys.values()):
        raise ConfigError(
            f"{directory} has a key {entry.name!r} already and it is not overwritten: revoke it first, "
            f"with `rlsp keys revoke {directory} {entry.name}`"
        )
    public, secret = zmq.curve_keypair()
    _write(directory / f"{entry.name}.secret", secret + b"\n", SECRET_MODE)
    _write_allowed(directory, AllowFile(keys={**listed.keys, public.decode(): entry}))


# --- reading -------------------------------------------------------------------------------------------------------


def read_hub_keys(directory: str) -> HubKeys | None:
    """A hub's own keys and its allow-list; None for an empty setting. Raises MachineError, ConfigError."""
    if not directory:
        return None
    path = _ring(directory)
    secret = _secret(path / f"{HUB}.secret")
    read_allowed(path)
    return HubKeys(keys=Keys(public=zmq.curve_public(secret), secret=secret), allowed=path / ALLOWED)


def read_worker_keys(directory: str, role: str, worker: str) -> Keys | None:
    """The keys of a worker; None for an empty setting. Raises MachineError, ConfigError."""
    if not directory:
        return None
    path = _ring(directory)
    own = path / f"{worker}.secret"
    secret = _secret(own if own.exists() else path / f"{role}.secret")
    return Keys(public=zmq.curve_public(secret), secret=secret, server=_key(path / f"{HUB}.public", forbidden=0o022))


def read_allowed(directory: Path) -> AllowFile:
    """allowed.json of a directory. Raises MachineError when it is missing, damaged or writable by other users."""
    path = directory / ALLOWED
    _require_mode(path, 0o022)
    return parse_allowed(path)


def parse_allowed(path: Path) -> AllowFile:
    """The list in a file. Raises MachineError."""
    try:
        listed = msgspec.json.decode(path.read_bytes(), type=AllowFile)
    except OSError as e:
        raise MachineError(f"{path}: {e.strerror}; make keys with `rlsp keys new {path.parent}`") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise MachineError(f"{path} is no list of keys ({e}): restore it, or make new keys") from None
    if any(len(key) != KEY_CHARACTERS for key in listed.keys):
        raise MachineError(f"{path} lists a key that has not {KEY_CHARACTERS} characters: restore it, or make new keys")
    return listed


def _ring(directory: str) -> Path:
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"replay.keys = {directory!r} is no directory: make keys with `rlsp keys new {directory}`, "
            "or copy the files of this process there"
        )
    return path


def _secret(path: Path) -> bytes:
    return _key(path, forbidden=0o077)


def _key(path: Path, forbidden: int) -> bytes:
    """The key in a file. `forbidden`: permission bits that the file must not have."""
    _require_mode(path, forbidden)
    text = path.read_bytes().strip()
    try:
        zmq.curve_public(text)  # any 32 bytes in Z85 pass
        right = len(text) == KEY_CHARACTERS
    except (zmq.ZMQError, ValueError):
        right = False
    if not right:
        raise MachineError(
            f"{path} holds no key of {KEY_CHARACTERS} characters: copy it again, or make new keys with `rlsp keys new`"
        ) from None
    return text


def _require_mode(path: Path, forbidden: int) -> None:
    """Raises MachineError for a file that is missing, or that other users can read (a secret) or write."""
    try:
        info = path.stat()
    except OSError as e:
        raise MachineError(f"{path}: {e.strerror}; `rlsp keys new` makes keys, and says which files go where") from None
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid == 0 != os.geteuid():
        forbidden &= ~0o050  # root gives the file to our group: how Kubernetes mounts a Secret
    elif info.st_uid not in (0, os.geteuid()):
        raise MachineError(f"{path} belongs to another user (uid {info.st_uid}): chown it to the user of this process")
    if mode & forbidden:
        raise MachineError(
            f"{path} can be {'read' if forbidden & 0o004 else 'changed'} by other users (mode "
            f"{mode:04o}): chmod {SECRET_MODE if forbidden & 0o004 else PUBLIC_MODE:o} {path}"
        )


# --- writing -------------------------------------------------------------------------------------------------------


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)
    except OSError as e:
        raise MachineError(f"{directory} cannot be made: {e.strerror}") from None


def _write_allowed(directory: Path, listed: AllowFile) -> None:
    """Writes the list whole, because a hub may read it at any moment. Raises MachineError."""
    text = msgspec.json.format(msgspec.json.encode(listed), indent=1) + b"\n"
    path = directory / ALLOWED
    try:
        replace_file(path, text, durable=True, mode=PUBLIC_MODE)
    except OSError as e:
        raise MachineError(f"{path} cannot be written: {e.strerror}") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """Writes a new file that has its mode from its first byte. Raises UserError when it exists."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path} is there already and is not overwritten: remove it first") from None
    except OSError as e:
        raise MachineError(f"{path} cannot be written: {e.strerror}") from None
    with os.fdopen(file, "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
