"""`python -m rlsp_async.cli` is `rlsp`."""

from rlsp_async.cli.command import main

raise SystemExit(main())
