"""The client of a chat endpoint: no call outlasts its deadline, and what an answer holds."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from rlsp_async.verifying.judge.client import ChatClient, ChatError, parse_retry_after, read_content


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_a_server_that_sends_byte_after_byte_holds_a_call_no_longer_than_its_deadline(head: bytes) -> None:
    """The clock of the client moves by one second with each look; the server soon has another byte."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return float(looks)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=dribble, args=(listener, head))
        server.start()
        client = ChatClient(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "", clock=clock)
        with pytest.raises(ChatError, match="no answer in time"):
            client.complete({}, until=20.0)
        server.join()
    assert looks == 20


def dribble(listener: socket.socket, head: bytes) -> None:
    """Accepts one connection and sends, without end and without a line break, until the other side closes it."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(head)
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.002)
        except OSError:
            return


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, 0),
        ("2", 2),
        ("0.5", 0.5),
        ("-1", 0),
        ("nan", 0),
        ("inf", 0),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0),
    ],
)
def test_retry_after(header: str | None, wait_s: float) -> None:
    assert parse_retry_after(header, 40.0) == wait_s


def test_content_in_pieces() -> None:
    body = {"choices": [{"message": {"content": [{"type": "text", "text": "0."}, {"type": "text", "text": "5"}]}}]}
    assert read_content(json.dumps(body).encode()) == "0.5"
