"""Files that grow with every group are bounded; files with one row a step stay whole."""

from __future__ import annotations

import pytest

from rlsp_async.jsonl import read_jsonl
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
