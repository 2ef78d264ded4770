"""Which ready groups make the next batch. The setting `selection` names one of these modules.

base.py            the contract, the options that every selection has, and reuse
fifo.py            the group that was ready first
freshest.py        the least off-policy group
prioritised.py     at random, by signal and lag
stratified.py      with a wanted share of correct rollouts
"""
