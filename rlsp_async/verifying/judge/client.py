"""A client of an OpenAI-compatible chat endpoint: one request, one text, never later than its deadline.

    client = ChatClient("http://judge:8000/v1", key="")
    text = client.complete({"model": "m", "messages": [...]}, until=time.monotonic() + 4)

It uses `http.client`. A call blocks its own process, so an asynchronous client would gain nothing, and here the
time that is left can be set before every single read: a server that sends one byte a second cannot hold a call. No
redirect is followed, nothing is decompressed, no connection is kept open, and an answer has at most MAX_BODY_BYTES.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

MAX_BODY_BYTES = 1 << 20
SHOWN_CHARS = 200
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which another try may succeed; all other 5xx do, too."""


class ChatError(Exception):
    """The endpoint gave no text.

    `may_help` says whether another try may succeed, `wait_s` how many seconds the endpoint asked to wait before it.
    """

    def __init__(self, why: str, may_help: bool, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.may_help = may_help
        self.wait_s = wait_s


class ChatClient:
    """One endpoint. It reads the certificates when it is made, so make it before the process is confined."""

    def __init__(self, base_url: str, key: str, ca_file: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """Makes a client; connects to nothing.

        Args:
            base_url: address up to and with /v1.
            key: sent as a bearer token; empty: none is sent.
            ca_file: PEM file of the certificates to trust; empty: those of the system.
            clock: the time in seconds; deadlines are in its time.

        Raises:
            ValueError: the address is not an http or https address.
            OSError: the file holds no certificates.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError(f"base_url {base_url!r} must look like http://host:8000/v1")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._tls = ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None
        self._key = key
        self._clock = clock
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Connection": "close",
            "Accept-Encoding": "identity",
            "User-Agent": "rlsp_async",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def complete(self, request: dict[str, Any], until: float) -> str:
        """Sends a request and returns the text of the first choice.

        Args:
            request: body of the request.
            until: deadline, in seconds of the client's clock.

        Raises:
            ChatError: no text arrived before the deadline.
        """
        try:
            status, headers, body = self._post(json.dumps(request).encode(), until)
        except TimeoutError:
            raise ChatError("no answer in time", True) from None
        except (OSError, http.client.HTTPException, ValueError) as e:
            may_help = not isinstance(e, ssl.SSLCertVerificationError)
            raise ChatError(self._clean(f"{type(e).__name__}: {e}"), may_help) from None
        if status != 200:
            may_help = status in RETRIED or status >= 500
            why = self._clean(f"status {status}: {body[:2000].decode('utf-8', 'replace')}")
            raise ChatError(why, may_help, parse_retry_after(headers.get("Retry-After"), time.time()))
        return read_content(body)

    def _post(self, body: bytes, until: float) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(self._connected(until)) as sock:
            connection = http.client.HTTPConnection(self._host, self._port)
            connection.sock = cast(socket.socket, _DeadlineSocket(sock, partial(_seconds_left, until, self._clock)))
            connection.request("POST", self._path, body, self._headers)
            with connection.getresponse() as response:
                data = response.read(MAX_BODY_BYTES + 1)
                if len(data) > MAX_BODY_BYTES:
                    raise ChatError(f"an answer of more than {MAX_BODY_BYTES} bytes", False)
                return response.status, response.headers, data

    def _connected(self, until: float) -> socket.socket:
        sock = socket.create_connection((self._host, self._port), timeout=_seconds_left(until, self._clock))
        if self._tls is None:
            return sock
        try:
            sock.settimeout(_seconds_left(until, self._clock))
            return self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def _clean(self, text: str) -> str:
        """The text as one short line that does not contain the key, for the detail of a verdict."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:SHOWN_CHARS]


class _DeadlineSocket:
    """The part of a socket that http.client uses; no call takes longer than the time left until the deadline."""

    def __init__(self, sock: socket.socket, seconds_left: Callable[[], float]) -> None:
        self._sock = sock
        self._seconds_left = seconds_left

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._seconds_left())
        self._sock.sendall(data)  # the timeout covers all of the data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._seconds_left))

    def close(self) -> None:
        """Does nothing: the socket is closed where it was opened, after the answer has been read."""


class _DeadlineReader(io.RawIOBase):
    """Reads what arrives on a socket until the deadline."""

    def __init__(self, sock: socket.socket, seconds_left: Callable[[], float]) -> None:
        self._sock = sock
        self._seconds_left = seconds_left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._seconds_left())
        return self._sock.recv_into(buffer)


def _seconds_left(until: float, clock: Callable[[], float]) -> float:
    """Seconds until the deadline. Raises TimeoutError when it has passed."""
    left = until - clock()
    if left <= 0:
        raise TimeoutError
    return left


def read_content(body: bytes) -> str:
    """Returns the text in the body of an answer.

    Raises:
        ChatError: the body is not a chat completion, or it has no text.
    """
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        shown = " ".join(body[:SHOWN_CHARS].decode("utf-8", "replace").split())
        raise ChatError(f"not a chat completion: {shown}", True) from None
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if not isinstance(text, str) or not text.strip():
        raise ChatError("an answer without text", True)
    return text


def parse_retry_after(header: str | None, now_s: float) -> float:
    """Returns the seconds that a Retry-After header asks to wait; 0 when it holds neither a number nor a date.

    Args:
        header: the header, or None.
        now_s: the time, in seconds since the epoch.
    """
    if not header:
        return 0.0
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, OverflowError):
            return 0.0
    return wait_s if 0.0 < wait_s < float("inf") else 0.0
