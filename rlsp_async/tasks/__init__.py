"""Tasks: prompts with reference answers. One module is one task; `task.name` in a run's settings names it.

base              what a task is, how one is loaded, and which prompts are held out
row_task          a task over rows in memory, which all tasks from files return; prompts that ask to verify a response
conversation      prompts that are lists of chat messages
readers           files of rows in every format, and the splits of data-set directories
fitted            a task without the rows that are too long for the run's model, or with their prompts cut
overlap           training rows that repeat held-out rows
word_tokenizer    the tokenizer of the generated puzzles

generated:        ops, addition, sums, reasoning_gym
shipped:          gsm8k, svamp, countdown, mbpp, humaneval (files in rlsp_async/data)
the user's files: dataset (also named jsonl, parquet, hf), hendrycks_math, aime, amc; `competition` is what the last
                  three share
"""
