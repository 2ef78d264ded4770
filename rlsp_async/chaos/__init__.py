"""`rlsp chaos CONFIG`: runs the line, injects faults by a seeded schedule, and audits what is left.

faults.py           which faults, and when: the schedule (pure)
fault_injection.py  what becomes of one message that passes the proxy (pure)
proxy.py            forwards messages between the workers and the hub
machine.py          finds and signals processes, fills a small disk
harness.py          runs `rlsp run` and carries out the schedule
verdict.py          the audit, recovery times, acknowledged work against the journal: pass or fail
"""
