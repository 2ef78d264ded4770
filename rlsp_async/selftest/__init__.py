"""`rlsp selftest`: does what is installed here work? Short trials of the real parts, each in a process of its own.

trials.py     the trials by name: what each shows, how long it may take, what it needs; pure
run_trials.py runs trials one after the other, each in its own process group with its own deadline; the table
child.py      the process of one trial
made.py       random models and random batches for the trials
basics.py     trials for every machine: a message, the sandbox, a learner's step, an engine
engines.py    trials of vLLM: its start, its log-probs, versions that change while it samples, its death
learners.py   trials of the learner: attention, resume, equal bits, seconds of a step and of a version
links.py      trials of the channels that carry weights: gloo, NCCL
whole.py      one short run with all services

A trial is a function from `trials.TrialSite` to `trials.TrialNote`s. benchmarks/gpu.sh and tests/gpu call the same
functions.
"""
