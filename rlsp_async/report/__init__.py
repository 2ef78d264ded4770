"""The results of a run, read from its files: a table, JSON and one self-contained HTML page.

results.py   reads settings, metrics, evaluations, timeline and rollouts into a `Report`
text.py      numbers as people read them; the tables of `rlsp run` and `rlsp report`
svg.py       the charts of the page, as SVG text
html.py      RUN/report.html (styles in report.css)
write.py     writes report.json and report.html, reads report.json
"""
