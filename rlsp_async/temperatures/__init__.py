"""Temperature schedules: at which temperature each group is sampled. `stages.NAME.temperature.name` names one.

base       what a schedule is and how one is loaded
constant   one temperature for all groups (the default)
linear     from one temperature to another over the first groups
random     uniformly from a grid
entropy    a controller that keeps the entropy of the samples constant
bstar      a bandit over a grid that looks for correct and different responses
"""
