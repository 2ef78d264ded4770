"""Your own Parquet files, with the options of `jsonl`; needs pyarrow: pip install 'rlsp_async[parquet]'.

    [task]
    name = "parquet"
    options = { path_train = "train.parquet", path_test = "test.parquet", prompt_field = "question", chat = true }
"""

from __future__ import annotations

from rlsp_async.tasks import jsonl
from rlsp_async.tasks.jsonl import Config

__all__ = ["Config", "load"]


def load(cfg: Config, seed: int) -> jsonl.Rows:
    """Reads the files; their names say their format."""
    return jsonl.Rows("parquet", cfg, jsonl.read_splits(cfg))
