"""`rlsp keys`: makes, lists and revokes the keys of a run over several machines.

rlsp keys new DIR [--roles sampler,verifier]    the hub's key pair, and one for each role
rlsp keys new DIR --worker NAME --role ROLE     one more, for one worker alone
rlsp keys list DIR                              the keys that are accepted; secrets are never shown
rlsp keys revoke DIR NAME                       a running hub notices within a second
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlsp_async.cli.arguments import Commands
from rlsp_async.errors import ConfigError

EVERY_ROLE = "sampler,verifier,learner,observer"


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp keys`."""
    parser = commands.add_parser("keys", help="make, list, revoke the keys of a line over several machines")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="key pairs for the hub and each role, or for one worker more")
    new.add_argument("directory", metavar="DIR", help="where they are kept; made with mode 0700")
    new.add_argument("--roles", metavar="A,B", help=f"roles that get a key (default: {EVERY_ROLE})")
    new.add_argument("--worker", metavar="NAME", help="one key for the worker of this name, which speaks for no other")
    new.add_argument("--role", metavar="ROLE", help="its role")
    listing = actions.add_parser("list", help="name, role and public key of everyone who is let in")
    listing.add_argument("directory", metavar="DIR")
    revoking = actions.add_parser("revoke", help="take a key off the list; a running hub notices within a second")
    revoking.add_argument("directory", metavar="DIR")
    revoking.add_argument("name", metavar="NAME", help="as `rlsp keys list` shows it")
    parser.set_defaults(function=keys_command)


def keys_command(arguments: argparse.Namespace) -> int:
    """Carries out one action of `rlsp keys` and returns 0. Raises UserError."""
    directory = Path(arguments.directory).expanduser()
    match arguments.action:
        case "new" if arguments.worker or arguments.role:
            _new_worker(directory, arguments)
        case "new":
            _new_ring(directory, arguments.roles or EVERY_ROLE)
        case "list":
            _list(directory)
        case "revoke":
            _revoke(directory, arguments.name)
    return 0


def _new_ring(directory: Path, roles: str) -> None:
    from rlsp_async.wire.keyring import create_keyring

    entries = create_keyring(directory, [role.strip() for role in roles.split(",") if role.strip()])
    print(
        f"made {directory}: keys for the hub and for {', '.join(entry.name for entry in entries)}\n\n"
        f"on the hub's machine    hub.secret allowed.json; run it with replay.keys={directory}",
    )
    for entry in entries:
        print(_copy_line(f"for every {entry.role}", entry.name))
    print("\nA secret travels by scp or the like, keeps its mode 600, and goes to nobody else.")


def _new_worker(directory: Path, arguments: argparse.Namespace) -> None:
    from rlsp_async.wire.keyring import add_worker_key

    if not (arguments.worker and arguments.role) or arguments.roles:
        raise ConfigError("one worker's key needs both --worker NAME and --role ROLE, and no --roles")
    entry = add_worker_key(directory, arguments.worker, arguments.role)
    print(f"made a key for the {entry.role} {entry.name}\n\n" + _copy_line(f"for {entry.name}", entry.name))


def _revoke(directory: Path, name: str) -> None:
    from rlsp_async.wire.keyring import revoke_key

    entry = revoke_key(directory, name)
    print(
        f"{entry.name} ({entry.role}) is off the list of {directory}; a hub that reads this directory "
        "refuses it within a second"
    )


def _copy_line(whom: str, name: str) -> str:
    return f"{whom:<24}hub.public {name}.secret; into a directory of their own, named by replay.keys"


def _list(directory: Path) -> None:
    from rlsp_async.wire.keyring import read_allowed

    listed = read_allowed(directory)
    print(f"{'name':<24}{'role':<10}{'speaks for':<22}public key")
    for key, entry in sorted(listed.keys.items(), key=lambda item: item[1].name):
        whom = "this worker alone" if entry.worker else f"every {entry.role}"
        print(f"{entry.name:<24}{entry.role:<10}{whom:<22}{key}")
    print(f"{len(listed.keys)} keys are let in")
