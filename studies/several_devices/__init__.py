"""What was measured of links and of lost drafts: `python -m studies.several_devices.link_times`, `.kill_drafts`."""

from __future__ import annotations

import sys


def say(line: object) -> None:
    """A line of what was found, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
