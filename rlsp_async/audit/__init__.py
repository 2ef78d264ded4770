"""`rlsp audit RUN`: checks the guarantees of a run after the fact, from its journal alone.

The checker shares the schema of the settings and the shapes of the records with the hub, and none of its decisions:
every rule is worked out here again, from the tables.

    history.py   what every check reads (History) and what it returns (Finding)
    groups.py    G1 nothing lost, G2 nothing twice, G3 whole groups, G8 true verdicts, G12 published versions
    acknowledged.py  what workers were told is stored, by their logs
    batches.py   G4 uses, G5 lag, G14 the token account, and the slots
    steps.py     G6 the same bits again, G7 fencing, G9 progress, G11 checkpoints, G13 settings
    derived.py   spawned groups and their parents, rollouts of success replay and their sources
    checks.py    all of them in one Audit

docs/guarantees.md says what each guarantee means.
"""
