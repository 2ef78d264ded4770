"""Sizes of released models, for estimates."""

from rlsp_async.model import ModelInfo

QWEN_1_5B = ModelInfo(
    vocabulary=151936,
    hidden=1536,
    layers=28,
    heads=12,
    kv_heads=2,
    head_dim=128,
    intermediate=8960,
    context=32768,
    tied=True,
)
"""Qwen2.5-1.5B, 1.54e9 parameters."""

QWEN_7B = ModelInfo(
    vocabulary=152064,
    hidden=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    intermediate=18944,
    context=32768,
    tied=False,
)
"""Qwen2.5-7B, 7.61e9 parameters."""
