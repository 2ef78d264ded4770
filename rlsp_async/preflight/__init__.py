"""`rlsp check`: what a run needs and whether its settings are sensible, before anything starts.

check.py          the command: refusals (exit code 2), warnings, the page of derived numbers
estimate.py       memory, disk and tokens per step from the settings and the model's shape
policies.py       what prompt selection, temperatures, replay and spawning will do
staleness.py      how old a rollout can become when it is trained
reward_checks.py  can a wrong answer earn more than a right one?
"""
