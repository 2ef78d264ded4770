"""The environment of a run as a sampler sees it: a process for each rollout, deadlines, failures that are named.

    async with EnvironmentPool(cfg.task, cfg.verifier.memory_mb) as pool:
        child = await pool.open()
        observation = await child.reset(prompt, seed)
        said = await child.step(text)           # Observation or End
        child.close()

A step that takes longer than `turn_s`, an environment that takes longer than `episode_s` in all, an error in it and the
death of its process raise EngineError: the rollout is void, and its group is sampled again.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

import msgspec
import structlog

from rlsp_async.config import EnvironmentConfig
from rlsp_async.environments.base import End, Observation
from rlsp_async.environments.fork_server import Reply, Reset, Step
from rlsp_async.errors import EngineError
from rlsp_async.messages import Prompt
from rlsp_async.verifying.fork_server import CheckerLimits
from rlsp_async.verifying.pool import CheckerChannel, ForkServer, start_child

_REPLY = msgspec.msgpack.Decoder(Reply)


class EnvironmentPool:
    """Makes the process of each rollout. There are as many at once as rollouts of the groups that a sampler holds."""

    def __init__(self, cfg: EnvironmentConfig, memory_mb: int) -> None:
        self.cfg = cfg
        limits = CheckerLimits(memory_mb=memory_mb, cpu_s=math.ceil(cfg.episode_s) + 1)
        self.fork_server = ForkServer(
            cfg.name, cfg.options, limits, program="rlsp_async.environments.fork_server", noun="environment"
        )

    async def __aenter__(self) -> Self:
        await self.fork_server.start()
        if structlog.is_configured():  # else its default would write to standard output
            held = {what.replace(" ", "_"): held for what, held in self.fork_server.restrictions.items()}
            structlog.get_logger().info("environment", name=self.cfg.name, **held)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.fork_server.stop()

    async def open(self) -> EnvironmentProcess:
        """Starts the process of one rollout.

        Raises:
            EngineError: no process can be started.
            MachineError: the fork server died and does not start again.
        """
        await self.fork_server.start()  # does nothing unless it died
        channel, pid = await start_child(self.fork_server, "environment")
        return EnvironmentProcess(self.cfg, self.fork_server, channel, pid)


class EnvironmentProcess:
    """The process of one rollout. `seconds` is the time that the environment took."""

    def __init__(self, cfg: EnvironmentConfig, forker: ForkServer, channel: CheckerChannel, pid: int) -> None:
        self._cfg, self._forker, self._channel, self.pid = cfg, forker, channel, pid
        self.seconds = 0.0

    async def reset(self, prompt: Prompt, seed: int) -> Observation:
        """Begins the rollout. Raises EngineError."""
        said = await self._ask(Reset(prompt=prompt, seed=seed))
        assert isinstance(said, Observation), "the child refuses an End here"
        return said

    async def step(self, text: str) -> Observation | End:
        """Says what the policy said. Raises EngineError."""
        return await self._ask(Step(text=text))

    def close(self) -> None:
        """Kills the process. May be called twice."""
        if not self._channel.is_closed:
            self._channel.close()
        if self.pid:
            self._forker.kill(self.pid)
            self.pid = 0

    async def _ask(self, said: Reset | Step) -> Observation | End:
        loop = asyncio.get_running_loop()
        began, left_s = loop.time(), self._cfg.episode_s - self.seconds
        bound_s = min(self._cfg.turn_s, left_s)
        try:
            async with asyncio.timeout(max(0.0, bound_s)):
                self._channel.send(said)
                body = await self._channel.frame()
        except TimeoutError:
            name = "turn_s" if bound_s == self._cfg.turn_s else "episode_s"
            raise self._failed(f"no answer within task.environment.{name} = {getattr(self._cfg, name):g} s") from None
        finally:
            self.seconds += loop.time() - began
        if body is None:
            raise self._failed("its process died")
        try:
            reply = _REPLY.decode(body)
        except msgspec.MsgspecError as e:
            raise self._failed(f"its process sent no reply: {e}") from None
        if reply.kind == "failure":
            raise self._failed(reply.text)
        if reply.kind == "end":
            return End(parts=reply.parts, detail=reply.text)
        return Observation(text=reply.text)

    def _failed(self, why: str) -> EngineError:
        self.close()
        return EngineError(f"environment {self._cfg.name}: {why}")
