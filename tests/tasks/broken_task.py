"""A user's module that needs something that is not installed."""

import a_library_nobody_has  # noqa: F401
