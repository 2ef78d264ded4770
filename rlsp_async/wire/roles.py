"""What a role may say. Pure.

           hello ping bye   done        failed   loaded rejected
sampler      x    x    x    groups        x        x       x
verifier     x    x    x    verdicts      x
learner      x    x    x    steps         x
observer     x    x    x
"""

from __future__ import annotations

from rlsp_async.messages import Bye, Done, Failed, FromWorker, Hello, Loaded, Ping, Rejected, Role

EVERYBODY: frozenset[type] = frozenset({Hello, Ping, Bye})
WORKS = EVERYBODY | {Done, Failed}
MAY_SAY: dict[Role, frozenset[type]] = {
    "sampler": WORKS | {Loaded, Rejected},
    "verifier": WORKS,
    "learner": WORKS,
    "observer": EVERYBODY,
}
RESULT: dict[Role, str] = {"sampler": "groups", "verifier": "verdicts", "learner": "steps"}
"""The one field of Done that a role may fill."""
RESULTS = frozenset(RESULT.values())


def may_say(role: Role, message: FromWorker) -> bool:
    """Whether a worker of this role may send that."""
    if type(message) not in MAY_SAY[role]:
        return False
    if isinstance(message, Done):
        return not any(getattr(message, field) for field in RESULTS - {RESULT[role]})
    return True
