"""`ssd-lab settings`: the settings of this machine, and where each value came from."""

from __future__ import annotations

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json


def command(json_: options.Json = False) -> None:
    """Read the settings anew and show them."""
    from ssd_lab.settings import Settings

    settings = Settings()
    if json_:
        print_json({"settings": settings.as_dict(), "unknown": settings.unknown})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold cyan")
    for column in ("setting", "value", "came from", "meaning"):
        table.add_column(column, overflow="fold")
    for name, row in settings.as_dict().items():
        table.add_row(*map(Text, (name, row["value"] or "-", row["source"], row["description"])))
    out = console()
    out.print(table)
    for place in settings.unknown:
        out.print(Text(f"note: {place} is no setting of ssd_lab", style="yellow"))
