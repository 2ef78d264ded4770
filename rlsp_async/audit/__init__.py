"""`rlsp audit RUN`: checks the guarantees of a run after the fact, from its journal alone.

The checker shares the records' shapes with the hub and nothing else: every law is worked out here again, from the
tables. One file a few guarantees: groups.py (G1 G2 G3 G8 G12), batches.py (G4 G5), steps.py (G6 G7 G9), files.py
(G11 G13), account.py (the slot law and the token account, G14), spawned.py (children and their parents).
"""
