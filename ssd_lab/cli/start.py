"""Where the program begins: Ctrl-C during its imports ends it in one line."""

from __future__ import annotations

from ssd_lab.cli.interrupts import starting


def main() -> None:
    """Entry point of the installed script."""
    starting()
    from ssd_lab.cli.main import main as run

    run()
