"""Rollouts of several turns: columns, versions, seeds, bounds; over the scripted engine and environments in memory."""

import asyncio

import msgspec
import pytest

from rlsp_async.columns import floats, ints
from rlsp_async.config import EnvironmentConfig
from rlsp_async.contents import check_rollouts
from rlsp_async.environments.base import End, Observation
from rlsp_async.errors import DataError, EngineError
from rlsp_async.messages import Prompt, RolloutGroup, SampleJob, Sampling
from rlsp_async.sampling import conversation
from rlsp_async.sampling.conversation import Conversations, sample_conversations
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.scripted import ScriptedEngine
from rlsp_async.sampling.torch_engine import TorchEngine


class Codec:
    """Text is ids with blanks between them."""

    stop_ids = (2,)

    def encode_observation(self, prompt, text):
        return [int(word) for word in text.split()]


class Child:
    """An environment that says what `says` makes of (turn, text)."""

    def __init__(self, says, begin):
        self._says, self._begin, self._num = says, begin, 0
        self.seed = self.is_closed = None

    async def reset(self, prompt, seed):
        self.seed = seed
        return Observation(text=self._begin)

    async def step(self, text):
        await asyncio.sleep(0)
        self._num += 1
        said = self._says(self._num, text)
        if isinstance(said, Exception):
            raise said
        return said

    def close(self):
        self.is_closed = True


class Pool:
    def __init__(self, says, max_turns=8, begin=""):
        self.cfg = EnvironmentConfig(name="x", max_turns=max_turns)
        self._says, self._begin = says, begin
        self.children = []

    async def open(self):
        self.children.append(Child(self._says, self._begin))
        return self.children[-1]


def given(pool, engine, rollouts=1, max_new_tokens=20, together=0):
    job = SampleJob(
        group_id=9,
        prompt=Prompt(prompt_id="p", task="t", text="4 5", answer="a"),
        sampling=Sampling(rollouts=rollouts, max_new_tokens=max_new_tokens, seed=3),
    )
    return Conversations(
        engine=engine,
        codec=Codec(),
        environments=pool,
        job=job,
        prompt_ids=[4, 5],
        settings=GenerateSettings(max_new_tokens=max_new_tokens, stop_ids=(2,), seed=(3, 9), together=together),
        to_text=lambda completion: " ".join(str(i) for i in completion.token_ids if i != 2),
        worker="sampler-0",
        clock=lambda: 0.0,
    )


def twice(num, text):
    return Observation(text="30 31") if num < 2 else End(parts={"correct": 1.0}, detail="well done")


def as_group(made, rollouts):
    return RolloutGroup(
        group_id=9, prompt=made.job.prompt, prompt_ids=b"\1\0\0\0", sampling=made.job.sampling, rollouts=rollouts
    )


async def test_a_turn_is_what_was_sampled_and_an_observation_stands_between():
    pool, engine = Pool(twice), ScriptedEngine(script=lambda ids: [7, len(ids), 2])
    made = given(pool, engine)
    (rollout,) = await sample_conversations(made)
    assert ints(rollout.token_ids).tolist() == [7, 2, 30, 31, 7, 6, 2]  # the script's second id is a stop id at first
    assert ints(rollout.versions).tolist() == [0, 0, -1, -1, 0, 0, 0]
    assert floats(rollout.logprobs).tolist() == [-0.5, -0.5, 0.0, 0.0, -0.5, -0.5, -0.5]
    assert ints(rollout.turns).tolist() == [0, 4]
    assert (rollout.text, rollout.ended, rollout.claim, rollout.finish) == ("7 6", "done", {"correct": 1.0}, "stop")
    said = [["model", "7"], ["environment", "30 31"], ["model", "7 6"], ["end", "well done"]]
    assert msgspec.msgpack.decode(rollout.transcript) == said
    assert pool.children[0].is_closed
    assert check_rollouts(as_group(made, [rollout]), 100, 0, 20, max_turns=8) == (0, 0)


async def test_what_the_environment_says_first_stands_behind_the_prompt():
    made = given(Pool(lambda num, text: End(), begin="40 41"), ScriptedEngine(script=lambda ids: [*ids, 2]))
    (rollout,) = await sample_conversations(made)
    assert ints(rollout.token_ids).tolist() == [40, 41, 4, 5, 40, 41, 2]
    assert ints(rollout.turns).tolist() == [2]
    too_long = given(Pool(twice, begin="40 " * 20), ScriptedEngine(window=16))
    with pytest.raises(DataError, match="first observation"):
        await sample_conversations(too_long)


@pytest.mark.parametrize(
    ("says", "max_turns", "max_new_tokens", "window", "ended", "num_turns", "finish"),
    [
        (lambda num, text: Observation(text="30"), 3, 90, 99, "max_turns", 3, "stop"),
        (lambda num, text: Observation(text="30"), 9, 7, 99, "max_tokens", 4, "length"),
        (lambda num, text: Observation(text="30"), 9, 6, 99, "max_tokens", 3, "length"),
        (lambda num, text: Observation(text="30"), 9, 90, 10, "max_tokens", 3, "length"),
        (lambda num, text: Observation(text="30 " * 50), 9, 90, 40, "max_tokens", 1, "length"),
        (lambda num, text: Observation(text=""), 1000, 2000, 5000, "max_turns", 1000, "stop"),
    ],
)
async def test_every_rollout_has_a_bound(says, max_turns, max_new_tokens, window, ended, num_turns, finish):
    made = given(Pool(says, max_turns), ScriptedEngine(script=lambda ids: [7, 2], window=window), 1, max_new_tokens)
    (rollout,) = await sample_conversations(made)
    assert (rollout.ended, len(rollout.turns) // 4, rollout.finish) == (ended, num_turns, finish)
    sampled = sum(version >= 0 for version in ints(rollout.versions))
    assert sampled <= max_new_tokens and len(rollout.token_ids) // 4 + 2 <= window
    assert rollout.claim == {}
    check_rollouts(as_group(made, [rollout]), 100, 0, max_new_tokens, max_turns=max_turns)


async def test_tokens_carry_the_version_that_sampled_them_through_a_swap_between_turns(tmp_path):
    engine = ScriptedEngine(script=lambda ids: [7, 2])

    def swapping(num, text):
        engine._version = num
        return twice(num, text)

    (rollout,) = await sample_conversations(given(Pool(swapping), engine))
    assert ints(rollout.versions).tolist() == [0, 0, -1, -1, 1, 1]


async def test_a_failure_of_the_environment_voids_the_group_and_ends_its_children():
    def failing(num, text):
        return EngineError("environment x: its process died") if num == 2 else Observation(text="30")

    pool = Pool(failing)
    with pytest.raises(EngineError, match="its process died"):
        await sample_conversations(given(pool, ScriptedEngine(script=lambda ids: [7, 2]), rollouts=3))
    assert len(pool.children) == 3 and all(child.is_closed for child in pool.children)


async def test_rollouts_have_seeds_of_their_own_and_are_the_same_again():
    groups = []
    for together in (0, 0, 4):
        pool = Pool(twice)
        rollouts = await sample_conversations(given(pool, ScriptedEngine(), rollouts=4, together=together))
        groups.append([(rollout.token_ids, rollout.turns) for rollout in rollouts])
        assert len({child.seed for child in pool.children}) == 4
    assert groups[0] == groups[1] == groups[2]
    assert len({ids for ids, _ in groups[0]}) == 4


async def test_in_a_synchronous_run_the_rollouts_of_a_group_go_on_together():
    asked = []

    class Engine(ScriptedEngine):
        async def generate(self, prompt_ids, settings):
            asked.append((settings.seed, settings.together))
            return await super().generate(prompt_ids, settings)

    def ends(num, text):
        return End() if num == 2 or text.startswith("8") else Observation(text="30")

    engine = Engine(script=lambda ids: [7, 2])
    await sample_conversations(given(Pool(ends), engine, rollouts=3, together=3))
    assert asked == [((3, 9, turn, index), 3) for turn in range(2) for index in range(3)]


async def test_columns_that_are_not_what_was_said_are_a_bug(monkeypatch):
    real = conversation._Conversation._append

    def forgetful(self, ids, completion):
        real(self, ids, completion)
        if completion is None and ids:
            self._ids[-1] += 1

    monkeypatch.setattr(conversation._Conversation, "_append", forgetful)
    with pytest.raises(AssertionError, match="group 9, rollout 0"):
        await sample_conversations(given(Pool(twice), ScriptedEngine(script=lambda ids: [7, 2])))


def test_a_transcript_is_bounded():
    packed = conversation.transcript([("model", "x" * 1000)] * 5000)
    assert len(packed) <= 65_536
    assert msgspec.msgpack.decode(packed)[-1] == ["cut", ""]


async def test_a_synchronous_run_samples_the_same_bits_whatever_else_decodes(make_model, make_config):
    """The torch engine decodes each turn of a group apart; environments answer in any order."""

    def guessing(num, text):
        return Observation(text="30 31") if num < 3 else End()

    async def sampled(others):
        engine = TorchEngine(make_config(max_sequences=16), make_model(), 1)
        await engine.start()
        try:
            made = given(Pool(guessing), engine, rollouts=3, max_new_tokens=12, together=3)
            beside = [engine.generate([4, 5, 6], GenerateSettings(max_new_tokens=20)) for _ in range(others)]
            rollouts, *_ = await asyncio.gather(sample_conversations(made), *beside)
        finally:
            await engine.close()
        return [(one.token_ids, one.logprobs, one.versions, one.turns) for one in rollouts]

    alone = await sampled(0)
    assert alone == await sampled(7)
    assert len({ids for ids, *_ in alone}) == 3
