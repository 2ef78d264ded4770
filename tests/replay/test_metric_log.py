"""Files that grow with every group are bounded; files with one row a step stay whole."""

from __future__ import annotations

import pytest

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.jsonl import read_jsonl
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling
from rlsp_async.replay import metrics
from rlsp_async.replay.metrics import MetricLog, MetricRow


def test_timeline_is_cut_in_two_and_metrics_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "FILE_BYTES", 4000)
    monkeypatch.setattr(metrics, "ROWS_BETWEEN_CHECKS", 10)
    files = MetricLog(tmp_path)
    for number in range(2000):
        files.write([MetricRow("timeline", {"n": number, "what": "x" * 80}), MetricRow("metrics", {"n": number})])
    files.close()
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2000
    newest = [row["n"] for row in read_jsonl(tmp_path / "timeline.jsonl")]
    older = [row["n"] for row in read_jsonl(tmp_path / "timeline.old.jsonl")]
    assert older + newest == list(range(older[0], 2000))
    assert 40 <= len(older) <= 60
    total = sum(path.stat().st_size for path in tmp_path.glob("timeline*"))
    assert total < 2 * (4000 + 10 * 110)
    assert not (tmp_path / "metrics.old.jsonl").exists()


def test_tokens_a_second_do_not_fall_to_0_when_two_steps_share_a_round_of_sampling():
    from rlsp_async.replay.state import Pace

    pace, seen = Pace(0.0), []
    for step, generated in enumerate([1000, 1000, 2000, 2000, 3000], start=1):
        seen.append(pace.tokens_per_s(generated, 10.0 * step))
        pace.stepped(generated, 10.0 * step)
    assert seen == [100.0, 50.0, pytest.approx(200 / 3), 50.0, 60.0]


def test_turns_and_how_rollouts_ended_are_figures_of_a_batch_with_an_environment():
    def group(*ended):
        rollouts = [
            Rollout(
                index=index,
                token_ids=pack_ints([5, 6]),
                logprobs=pack_floats([0.0, 0.0]),
                versions=pack_ints([0, 0]),
                text="",
                turns=pack_ints(list(range(num))),
                ended=how,
            )
            for index, (how, num) in enumerate(ended)
        ]
        prompt = Prompt(prompt_id="p", task="t", text="q", answer="a")
        return RolloutGroup(group_id=1, prompt=prompt, prompt_ids=b"", sampling=Sampling(), rollouts=rollouts)

    groups = [group(("done", 2), ("max_turns", 2)), group(("done", 1), ("done", 1))]
    assert metrics.turn_figures(groups) == {"turns": 1.5, "ended_done": 0.75, "ended_max_turns": 0.25}
    assert metrics.turn_figures([group(("", 0))]) == {}
