"""Rollouts outside of a run: as rows of a file, out of a run and into another one.

export          `rlsp export`: rows of a file from the groups in a run's journal
imported_rows   rows of a file as groups for training: encoded, checked, grouped
importing       `rlsp import`: adds such groups to a run, with verdicts made here if wanted
"""
