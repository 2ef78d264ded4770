"""Environments: programs that answer the policy within a rollout, so that a rollout is a conversation.

    prompt --engine--> turn --text--> environment --observation--> turn --> ... --> End(parts)

`task.environment` names one. The sampler owns the tokens, an environment owns texts and parts of a reward.

    base.py         what an environment is, and how the one of a run is loaded
    calls.py        how a response calls a tool, and how the tool answers
    calculator.py   a tool that computes
    fork_server.py  the process that forks a confined child for each rollout
    pool.py         the children as the sampler sees them: each step has a deadline, and a child can be killed
"""
