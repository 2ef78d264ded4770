"""Do the selections do what they are for? Prompts of known difficulty, verdicts that come late, no hub."""

from __future__ import annotations

from collections import Counter, deque
from random import Random

from rlsp_async.config import PromptsConfig
from rlsp_async.prompts.base import load_selector

SIZE, ROLLOUTS, IN_FLIGHT = 200, 8, 24
PROMPTS = {
    "uniform": PromptsConfig(),
    "mopps": PromptsConfig(name="mopps"),
    "curriculum": PromptsConfig(name="curriculum", options={"start": 0.5, "end": 0.5}),
}


def rates() -> list[float]:
    """Half of the prompts are hopeless, a quarter is easy, a quarter is in between."""
    return [0.0 if i % 4 < 2 else 0.99 if i % 4 == 2 else 0.2 + 0.6 * (i / SIZE) for i in range(SIZE)]


def share_without_signal(name: str, seed: int, draws: int = 800) -> float:
    """Of the groups after the first pass, those in which all rollouts are right or all are wrong."""
    selector, random, success = load_selector(PROMPTS[name], seed, SIZE), Random(seed), rates()
    flying: deque[tuple[int, int]] = deque()
    pending: Counter[int] = Counter()
    bad = 0
    for cursor in range(draws):
        index = selector.draw(cursor, pending).index
        right = sum(random.random() < success[index] for _ in range(ROLLOUTS))
        bad += cursor >= SIZE and right in (0, ROLLOUTS)
        pending[index] += 1
        flying.append((index, right))
        if len(flying) > IN_FLIGHT:
            done, num = flying.popleft()
            pending[done] -= 1
            if not pending[done]:
                del pending[done]
            selector.observe(done, num, ROLLOUTS)
    return bad / (draws - SIZE)


def test_mopps_and_the_curriculum_waste_less_than_uniform():
    shares = {name: sum(share_without_signal(name, seed) for seed in range(3)) / 3 for name in PROMPTS}
    assert 0.7 < shares["uniform"] < 0.8
    assert shares["mopps"] < 0.5 * shares["uniform"]
    assert shares["curriculum"] < 0.6 * shares["uniform"]
