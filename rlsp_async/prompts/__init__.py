"""Prompt selections: which training prompt a stage issues next. `stages.NAME.prompts.name` names one.

base         what a selection is and how one is loaded
uniform      every prompt once in each pass, in random order (the default)
table        what the learning selections remember about each prompt: two numbers and a count
curriculum   from prompts that are mostly solved to prompts that mostly are not
mopps        prompts with a success rate near a target, by Thompson sampling
"""
