"""What must be true before a run begins. `rlsp check` shows it, `rlsp run` refuses what cannot work.

settings.py   settings that cannot work (refused), and settings that work but perhaps not as meant (warnings)
inputs.py     what the settings name can be loaded and read: modules, keys, data, tokenizer
rows.py       every row is measured: prompts, held-out prompts, demonstrations; what is dropped or cut
references.py every reference answer is judged by the run's own verifier
cards.py      what each GPU of a machine would hold, and whether that fits
estimate.py   memory, disk and tokens per step, from the settings and the model's sizes
"""
