"""Your own Parquet files, with the options of `jsonl`; needs pyarrow: pip install 'rlsp_async[parquet]'.

[task]
name = "parquet"
options = { path_train = "train.parquet", path_test = "test.parquet", prompt_field = "question", chat = true }
"""

from __future__ import annotations

from rlsp_async.tasks.dataset import EXAMPLE, Config, task_of
from rlsp_async.tasks.row_task import Rows

__all__ = ["EXAMPLE", "Config", "load"]


def load(cfg: Config, seed: int) -> Rows:
    """Reads the files; their names say their format."""
    return task_of(cfg, "parquet")
