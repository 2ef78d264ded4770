"""The results of a run, read from its files: a table, JSON and one self-contained HTML page.

report.py    reads metrics.jsonl, evaluations and the settings into a `Report`
rows.py      rows of metrics.jsonl as series
timeline.py  timeline.jsonl as bars of who was busy when
text.py      numbers as people read them
html.py      RUN/report.html (styles in report.css)
svg.py       the charts in it
"""
