"""Files that grow with every group are bounded; files with one row a step stay whole."""

from __future__ import annotations

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
