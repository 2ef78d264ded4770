"""Verifier that asks a language model behind an OpenAI-compatible address to grade a response by a rubric.

    judge = load(JudgeConfig(base_url="http://judge:8000/v1", model="m", rubric="correctness"))
    judge.score("What is 2 + 2?", "... so 4", "4").parts == {"correct": 1.0, "format": 1.0, "judge": 1.0}

`rubric = "exploration"` is the effort judge of RLSP: its score is the part "judge", and the inner verifier says whether
the answer is right. A judge that cannot be reached, or whose reply holds no score, is a fault of the verifier: the
status is "error" and no reward follows. With the option `neutral`, that value becomes the part "judge" instead, and the
part "judge_failed" marks it.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, PathText, PluginName, Range, VariableName
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import Verifier, add_parts, load_inner, make_verdict
from rlsp_async.verifying.judge.client import ChatClient, ChatError
from rlsp_async.verifying.judge.reply import JudgeReply, read_reply
from rlsp_async.verifying.judge.rubric import GradedCase, build_messages, choose_rubric

VERSION = "2"
LANE = "network"
FIRST_WAIT_S = 0.25
MAX_WAIT_S = 8.0


class JudgeConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `judge`: the address, the rubric, and the bounds on time and tries."""

    base_url: FieldName
    """Address of the endpoint, up to and with /v1."""
    model: FieldName
    """Name of the model, as its server knows it."""
    api_key_env: VariableName = ""
    """Name of the environment variable that holds the key. Empty: no key is sent."""
    ca_file: PathText = ""
    """PEM file of the certificates that an https address is checked against. Empty: those of the system."""
    rubric: FreeText = "exploration"
    """exploration, correctness, or a text of your own with {response} and, if you like, {prompt} and {answer}."""
    score_range: Annotated[tuple[float, float], Range(ge=-(10**9), le=10**9)] = (0.0, 1.0)
    """Lowest and highest score of a text of your own; the part "judge" is the score as a share of this range."""
    inner: PluginName = ""
    """Verifier of the fast lane that says whether the answer is right. Empty: math for exploration, else none."""
    inner_options: dict[str, Any] = {}
    """Options of the inner verifier, decoded by its `Config`."""
    correct_from: Annotated[float, Range(gt=0, le=1)] = 0.5
    """Without an inner verifier: the answer is correct when the part "judge" is at least this."""
    max_tokens: Annotated[int, Range(ge=0, le=2**24)] = 512
    """Tokens of the judge's reply at most; 0: the limit is not sent."""
    temperature: Annotated[float, Range(ge=0, le=100)] = 0.0
    """Softmax temperature of the judge; 0: the most probable token each time."""
    extra: dict[str, Any] = {}
    """Further fields of the request, e.g. response_format or seed."""
    timeout_s: Annotated[float, Range(gt=0, lt=3_600)] = 4.0
    """Seconds for one judgement, retries and waits included. Keep it below verifier.deadline_s, which kills."""
    request_s: Annotated[float, Range(ge=0, lt=3_600)] = 0.0
    """Seconds for one request; a slower one is tried again. 0: whatever is left of timeout_s."""
    num_retries: Annotated[int, Range(ge=0, le=20)] = 3
    """Further tries after 408, 409, 425, 429, 5xx, a lost connection, a timeout, or a reply without a score."""
    max_chars: Annotated[int, Range(ge=100, le=10**9)] = 100_000
    """A prompt, answer or response with more characters is shown to the judge without its middle."""
    neutral: Annotated[float, Range(ge=0, le=1)] | None = None
    """Part "judge", 0 to 1, of an answer for which the judge failed. Unset: such an answer gets the status error."""

    def __post_init__(self) -> None:
        choose_rubric(self.rubric, *self.score_range)
        for ok, what in (
            (self.model, "model must name the judge's model"),
            (self.request_s <= self.timeout_s, f"request_s {self.request_s:g} must lie between 0 and timeout_s"),
            (
                self.neutral is None or self.inner or self.rubric == "exploration",
                'neutral needs an inner verifier (inner = "math"): a judge that failed cannot say what is right',
            ),
            (not {"messages", "stream"} & set(self.extra), "extra must not hold messages or stream"),
        ):
            if not ok:
                raise ValueError(what)


Config = JudgeConfig


class JudgeVerifier:
    """The verifier `judge`."""

    def __init__(self, cfg: JudgeConfig, key: str = "") -> None:
        """Makes the verifier; connects to nothing.

        Args:
            cfg: the options.
            key: the key of the endpoint; empty: none.

        Raises:
            ConfigError: the address, the certificates or the inner verifier cannot be used.
        """
        self._cfg = cfg
        self.needs_s = cfg.timeout_s
        self._rubric = choose_rubric(cfg.rubric, *cfg.score_range)
        try:
            self._chat = ChatClient(cfg.base_url, key, cfg.ca_file)
        except OSError as e:
            raise ConfigError(f"task.verifier_options.ca_file: {cfg.ca_file}: {e}") from None
        except ValueError as e:
            raise ConfigError(f"task.verifier_options: {e}") from None
        inner = cfg.inner or ("math" if cfg.rubric == "exploration" else "")
        self._inner: Verifier | None = load_inner(inner, cfg.inner_options) if inner else None

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict; its status is `error` when the judge failed and `neutral` is not set."""
        until = time.monotonic() + self._cfg.timeout_s
        verdict = None if self._inner is None else self._inner.judge(prompt, response, answer)
        if verdict is not None and not verdict.is_true:
            return verdict
        try:
            reply = self._ask(GradedCase(prompt, response, answer), until)
        except ChatError as e:
            return self._failed(verdict, f"the judge gave no score: {e}")
        share = self._rubric.share(reply.score)
        parts = {"judge": share} | ({"judge_fallback": 1.0} if reply.is_fallback else {})
        if verdict is None:
            verdict = make_verdict(share >= self._cfg.correct_from, "")
        return _with_detail(add_parts(verdict, **parts), reply.reason)

    def _failed(self, verdict: Verdict | None, why: str) -> Verdict:
        if verdict is None or self._cfg.neutral is None:
            return Verdict(status="error", detail=why)
        return _with_detail(add_parts(verdict, judge=self._cfg.neutral, judge_failed=1.0), why)

    def _ask(self, case: GradedCase, until: float) -> JudgeReply:
        """The judge's reply. Raises ChatError when the tries or the time have run out."""
        request = self._request(case)

        def once() -> JudgeReply:
            limit = time.monotonic() + self._cfg.request_s if self._cfg.request_s else until
            text = self._chat.complete(request, min(limit, until))
            reply = read_reply(text, self._rubric)
            if reply is None:
                raise ChatError(f"no score in {' '.join(text[-200:].split())!r}", True)
            return reply

        return call_with_retries(once, self._cfg.num_retries, until)

    def _request(self, case: GradedCase) -> dict[str, Any]:
        messages = build_messages(self._rubric, case, secrets.token_hex(8), self._cfg.max_chars)
        limit = {"max_tokens": self._cfg.max_tokens} if self._cfg.max_tokens else {}
        return {
            "model": self._cfg.model,
            "messages": messages,
            "temperature": self._cfg.temperature,
            **limit,
            **self._cfg.extra,
        }


def call_with_retries(
    once: Callable[[], JudgeReply],
    num_retries: int,
    until: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JudgeReply:
    """Calls `once` until it returns a reply.

    Args:
        once: one try; raises ChatError when it fails.
        num_retries: number of further tries.
        until: deadline, in seconds of `clock`; a wait that would not end before it is not begun.
        clock: the time in seconds.
        sleep: waits for a number of seconds.

    Raises:
        ChatError: the last one, when another try cannot help or the tries or the time have run out.
    """
    for attempt in range(num_retries + 1):
        try:
            return once()
        except ChatError as e:
            wait_s = compute_pause_s(attempt, e.wait_s, random.random())
            if not e.may_help or attempt == num_retries or clock() + wait_s >= until:
                raise ChatError(f"{e} (tries: {attempt + 1})", False) from None
        sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _with_detail(verdict: Verdict, why: str) -> Verdict:
    return msgspec.structs.replace(verdict, detail=verdict.detail or " ".join(why.split())[:500])


def compute_pause_s(attempt: int, asked_s: float, luck: float) -> float:
    """Returns the seconds to wait before the next try: doubling, with half of the wait at random.

    Args:
        attempt: number of failed tries before the last one.
        asked_s: seconds that the endpoint asked to wait; added.
        luck: random number in [0, 1).
    """
    return asked_s + min(MAX_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * (0.5 + 0.5 * luck)


def load(cfg: JudgeConfig) -> JudgeVerifier:
    """Makes the verifier, with its key from the environment.

    Raises:
        ConfigError: the variable of the key is not set, or holds something that cannot be a key.
    """
    key = os.environ.get(cfg.api_key_env, "") if cfg.api_key_env else ""
    if cfg.api_key_env and not key.strip():
        raise ConfigError(f"task.verifier_options.api_key_env: {cfg.api_key_env} is not set in the environment")
    if not (key.strip().isascii() and key.strip().isprintable()):
        raise ConfigError(f"task.verifier_options.api_key_env: the value of {cfg.api_key_env} cannot be a key")
    return JudgeVerifier(cfg, key.strip())
