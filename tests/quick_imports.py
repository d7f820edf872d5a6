"""What tests leave out of every process that they start, because it is slow to import and nothing here needs it."""

from __future__ import annotations

import sys

# what jsonschema (of nbformat) checks one format with: makes 38 grammars, 2.5 s of the processor, when it is imported
UNUSED = "rfc3987_syntax"
QUICK_IMPORTS = f"import sys; sys.modules[{UNUSED!r}] = None"  # begins a program of `python -c`


def leave_out() -> None:
    """In this process."""
    sys.modules[UNUSED] = None  # type: ignore[assignment]
