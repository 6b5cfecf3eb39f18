"""What all tests share."""

import hypothesis  # noqa: F401  (imported late by its pytest plugin, it trips over a bug of Python 3.11's ast module)
