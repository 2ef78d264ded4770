"""A verifier that obeys commands in the response, for the tests of the pool."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import time

from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict

VERSION = "9"
LANE = "fast"
PROBE = f"/tmp/rlsp-hostile-probe-{os.getuid()}"


def score(prompt: str, response: str, answer: str) -> Verdict:
    if response == "hang":
        while True:
            pass
    if response == "exit":
        os._exit(3)
    if response == "memory":
        return Verdict(status="correct", extracted=str(len(bytearray(4 << 30))))
    if response == "deep":
        return score(prompt, response, answer)
    if response == "raise":
        raise DataError("the reference answer is unusable")
    if response == "none":
        return None  # type: ignore[return-value]
    if response == "print":
        print("noise " * 10_000)
    if response == "huge":
        return Verdict(status="wrong", extracted="x" * 2_000_000)
    if response == "forge":
        sys.stdout = None
        os.write(4, b"\x00" * 64)
    if response == "fork":
        for _ in range(1000):
            os.fork()
    if response == "socket":
        socket.socket().connect(("127.0.0.1", 1))
    if response == "shell":
        os.execv("/bin/sh", ["sh", "-c", f"touch {PROBE}"])
    if response == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
    if response == "remove":
        os.unlink(__file__)
    if response == "rename":
        os.rename(__file__, PROBE)
    if response == "thread":
        threading.Thread(target=time.sleep, args=(1,)).start()
    if response == "limits":
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    if response == "trace":
        os.kill(os.getpid(), signal.SIGSTOP)
    if response == "many files":
        return Verdict(status="correct", extracted=str([os.open("/dev/null", os.O_RDONLY) for _ in range(10_000)]))
    if response == "patch":
        sys.modules[__name__].score = lambda *_: Verdict(status="correct", parts={"correct": 1.0})  # type: ignore[assignment]
        Verdict.__init__ = None  # type: ignore[method-assign]
    if response == "write":
        with open(PROBE, "w") as probe:
            probe.write("x" * 10)
    if response == "environ":
        return Verdict(status="correct", extracted=repr(dict(os.environ)))
    if response.startswith("sleep"):
        time.sleep(float(response[5:]))
    if response == "pid":
        return Verdict(status="correct", extracted=str(os.getpid()))
    return Verdict(status="correct" if response == answer else "wrong", parts={"correct": float(response == answer)})
