"""`rlsp chaos CONFIG`: runs the line, breaks it on purpose by a seeded schedule, and audits what is left.

faults.py (what, when: pure), mischief.py (what becomes of one message: pure), proxy.py (between the workers and the
hub), processes.py (who runs, kill, stop), harness.py (the whole), verdict.py (recovery times, acknowledgements, pass or
fail).
"""
