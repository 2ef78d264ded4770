"""A Hugging Face data set on disk, with the options of `jsonl`: a copy from the hub, or what save_to_disk wrote.

    [task]
    name = "hf"
    options = { path_train = "gsm8k/main", prompt_field = "question", answer_after = "####", chat = true }

Arrow and Parquet files need pyarrow (pip install 'rlsp_async[parquet]'); the library `datasets` is not needed.
"""

from __future__ import annotations

from rlsp_async.tasks.dataset import EXAMPLE, Config, task_of
from rlsp_async.tasks.row_task import Rows

__all__ = ["EXAMPLE", "Config", "load"]


def load(cfg: Config, seed: int) -> Rows:
    """Reads the splits of the directory."""
    return task_of(cfg, "hf")
