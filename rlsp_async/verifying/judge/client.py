"""A client of an OpenAI-compatible chat endpoint: one request, one text, no second later than it may.

    chat = Chat("http://judge:8000/v1", key="")
    text = chat.complete({"model": "m", "messages": [...]}, until=time.monotonic() + 4)

On `http.client`: a call blocks its own process, so an asynchronous client would gain nothing, and the standard library
lets the deadline be set anew before every single read; a server that sends one byte a second cannot hold a
call. Nothing is followed, unpacked or kept open, and an answer has at most MAX_BODY_BYTES.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

MAX_BODY_BYTES = 1 << 20
SHOWN_CHARS = 200
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that another try may change; 5xx in general."""


class ChatError(Exception):
    """The endpoint gave no text. `may_help`: whether another try may; `wait_s`: how long it asked to be left alone."""

    def __init__(self, why: str, may_help: bool, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.may_help = may_help
        self.wait_s = wait_s


class Chat:
    """One endpoint. Made before the process is confined: it reads the certificates."""

    def __init__(self, base_url: str, key: str, ca_file: str = "") -> None:
        """`ca_file`: certificates to trust, PEM; empty: the system's. Raises ValueError for what is no http or https
        address, OSError for a file that holds no certificates."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError(f"base_url {base_url!r} must look like http://host:8000/v1")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._tls = ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None
        self._key = key
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
        """The text of the first choice. Raises ChatError when there is none before `until` (of time.monotonic)."""
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
            raise ChatError(why, may_help, retry_after(headers.get("Retry-After"), time.time()))
        return content(body)

    def _post(self, body: bytes, until: float) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(self._connected(until)) as sock:
            connection = http.client.HTTPConnection(self._host, self._port)
            connection.sock = cast(socket.socket, _Punctual(sock, until))
            connection.request("POST", self._path, body, self._headers)
            with connection.getresponse() as response:
                data = response.read(MAX_BODY_BYTES + 1)
                if len(data) > MAX_BODY_BYTES:
                    raise ChatError(f"an answer of more than {MAX_BODY_BYTES} bytes", False)
                return response.status, response.headers, data

    def _connected(self, until: float) -> socket.socket:
        sock = socket.create_connection((self._host, self._port), timeout=_left(until))
        if self._tls is None:
            return sock
        try:
            sock.settimeout(_left(until))
            return self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def _clean(self, text: str) -> str:
        """Text for a verdict: one line, short, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:SHOWN_CHARS]


class _Punctual:
    """As much of a socket as http.client needs; no single call outlasts what is left of the time."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._until))
        self._sock.sendall(data)  # its timeout is for all of the data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._until))

    def close(self) -> None:
        """Nothing: who opened the socket closes it, after the answer has been read."""


class _Reader(io.RawIOBase):
    """What arrives on a socket, as long as there is time."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(buffer)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def content(body: bytes) -> str:
    """The text in the body of an answer. Raises ChatError for anything that is no chat completion."""
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


def retry_after(header: str | None, now_s: float) -> float:
    """Seconds that a Retry-After header asks for: a number or a date; 0 when it says neither."""
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
