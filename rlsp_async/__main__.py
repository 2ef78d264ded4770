"""`python -m rlsp_async` is `rlsp`."""

from rlsp_async.cli.command import main

raise SystemExit(main())
