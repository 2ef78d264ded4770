"""What the hub is compared with: a bare ROUTER that answers the same frames, and bare SQLite with the same bytes.

echo_per_s(frame, seconds)               one DEALER with 64 frames in flight, another process's ROUTER says "ok"
sqlite_per_s(frame, seconds, directory)  WAL, synchronous FULL, 64 rows a transaction
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import zmq

WINDOW = 64
PATIENCE_MS = 10_000


def echo_per_s(frame: bytes, seconds: float) -> float:
    """Frames answered a second."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        context, address = zmq.Context(), server.stdout.readline().strip()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        socket.connect(address)
        for _ in range(WINDOW):
            socket.send(frame)
        num, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            socket.recv()
            socket.send(frame)
            num += 1
        context.destroy(linger=0)
        server.kill()
    return num / (now - start)


def sqlite_per_s(frame: bytes, seconds: float, directory: Path) -> float:
    """Rows stored a second."""
    path = directory / "floor.sqlite"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE bodies (group_id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    num, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO bodies (body) VALUES (?)", [(frame,)] * WINDOW)
        db.execute("COMMIT")
        num += WINDOW
    db.close()
    for file in directory.glob("floor.sqlite*"):
        file.unlink()
    return num / (now - start)


def _serve() -> None:
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:0")
    print(socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode(), flush=True)
    while True:
        peer, _ = socket.recv_multipart()
        socket.send_multipart([peer, b"ok"])


if __name__ == "__main__":
    _serve()
