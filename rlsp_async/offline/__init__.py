"""`rlsp export` takes rollouts out of a run's journal, `rlsp import` puts them into another run, as rows of a file."""
