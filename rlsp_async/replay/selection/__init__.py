"""Which ready groups make the next batch: one file a choice. Contract: `base.py`."""
