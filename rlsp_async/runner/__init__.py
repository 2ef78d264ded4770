"""`rlsp run`: from a config to a finished run on this machine.

In the order in which a run meets them:

    run.py            checks, prepares, starts, watches, concludes; `rlsp run --resume` enters here too
    resume.py         may the run that is there go on with these settings?
    prepare.py        the run directory: settings, model, what is known of the data; written whole or not at all
    gpus.py           which process gets which GPU
    supervise.py      starts the services, restarts those that die, stops them
    hang_detector.py  which service is alive for the kernel and silent for the hub (pure)
    terminal.py       what a person sees meanwhile: reads the hub's status and draws it
"""
