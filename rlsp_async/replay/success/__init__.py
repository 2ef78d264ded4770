"""Success replay (ARPO): which successes are remembered (`memory.py`), when they are used (`mend.py`), where they lie
(`store.py`)."""
