"""Rewards: how parts of a verdict become a number, and what is counted in a response. Pure: arrays in, arrays out.

compose.py     Eq. 1 of RLSP from its parts, and the released server's form
explore.py     exploration rewards of length, search steps and a judge
novelty.py     the exploration reward of novelty within a group
penalties.py   faults that cost a rollout its reward (T1)
dominance.py   whether every right answer is paid more than every wrong one
search.py      counts of search steps in free text
grammar.py     counts of search steps in puzzles whose attempts have a grammar
"""
