"""`rlsp chaos CONFIG`: runs the line, injects faults by a seeded schedule, and audits what is left.

faults.py           which faults, and when: the schedule (pure)
fault_injection.py  what becomes of one message that passes the proxy (pure)
proxy.py            forwards messages between the workers and the hub
machine.py          finds and signals processes, fills a small disk
clocks.py           a wall clock for each process, which can be set (shifted/sitecustomize.py is in the process)
damage.py           damages files, and says whether a journal still has its content
liar.py             a peer with the right to speak, which lies
corruption.py       damages files of the running line, and watches what it does
harness.py          runs `rlsp run` and carries out the schedule
verdict.py          the audit, recovery times, acknowledged work against the journal: pass or fail
"""
