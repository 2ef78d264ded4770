"""The hub: it gives out prompts, keeps every group, chooses batches, and writes everything down before it speaks.

In the order in which one message goes through it:

    server.py          the shell: router, threads, commit queue, run lock; it obeys and decides nothing
    hub.py             one event in, what follows from it out; pure, time is an argument
    protocol.py        what a worker's message does: Hello, Ping, Done, Failed, Loaded, Rejected, Bye
    relay.py           requests for weights between a sampler and the learner
    turn.py            one event: its effects, and the one place where the outcome of work is settled
    sample.py          the sampler's post: next job, and what becomes of rollouts; demonstrations
    verify.py          the verifier's post: next job, and what becomes of verdicts
    train.py           the learner's post: manifests, batches, reports
    evaluation.py      evaluations as phases of the run, and their figures
    health.py          the watchdog, and what observers see
    metrics.py         rows of the jsonl files, and the files

What the hub knows:

    state.py           all of it, by owner: queues, retries, ending, pace, disk
    plan.py            stages and phases, and how far the training is
    ledger.py          the state of every group, the token account, and staleness
    workers.py         workers, leases, and who gets the next one

What a run may choose:

    selection/         which ready groups make a batch: one file for each name
    policies.py        the contract of a replay policy; each is one file:
    spawn.py           RISE: the model verifies its own rollouts
    success_replay.py  ARPO: failed groups get remembered successes
    sources.py         demonstrations and imported rollouts as groups

What is on disk:

    records.py         the records of the journal
    sql.py             its tables
    integrity.py       whether the file is what was written, at each start
    run_clock.py       the run's own clock, over restarts and reboots
    journal.py         commits, what a restart reads, invariants, tokens
"""
