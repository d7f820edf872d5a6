"""`ssd-lab settings`: the settings of this machine, and where each value came from."""

from __future__ import annotations

from ssd_lab.cli import options
from ssd_lab.cli.output import console, folded, print_json


def command(json_: options.Json = False) -> None:
    """Read the settings anew and show them."""
    from ssd_lab.settings import Settings

    settings = Settings()
    if json_:
        print_json({"settings": settings.as_dict(), "unknown": settings.unknown})
        return
    from rich.text import Text

    columns = ("setting", "value", "came from", "meaning")
    rows = [(name, row["value"] or "-", row["source"], row["description"]) for name, row in settings.as_dict().items()]
    out = console()
    out.print(folded(columns, rows, left=len(columns)))
    for place in settings.unknown:
        out.print(Text(f"note: {place} is no setting of ssd_lab", style="yellow"))
