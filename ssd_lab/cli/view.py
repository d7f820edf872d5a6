"""`ssd-lab view`: a recorded trace as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json


def command(
    traces: Annotated[list[Path], typer.Argument(help="Files that --trace wrote; several are shown side by side.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file. None: beside the first trace.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    import_: Annotated[
        list[str] | None, typer.Option("--import", help="A module to import first: it registers your views.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """Write the page and say where."""
    from ssd_lab.common.parsing import import_modules
    from ssd_lab.errors import ConfigError
    from ssd_lab.trace import load_trace
    from ssd_lab.trace.named import strategy_name
    from ssd_lab.widgets.page import write_html

    import_modules(import_ or ())
    named = {}
    for path in traces:
        trace = load_trace(path)
        name = strategy_name(trace, path.name)
        named[name if name not in named else f"{name} ({path.name})"] = trace
    page = out or traces[0].with_name(traces[0].name.removesuffix(".gz").removesuffix(".jsonl") + ".html")
    try:
        write_html(named, page)
    except OSError as error:
        raise ConfigError(f"cannot write {page}: {error}; name another file with --out") from error
    if json_:
        print_json(
            {"page": str(page), "bytes": page.stat().st_size, "rounds": {n: len(t.rounds) for n, t in named.items()}}
        )
    else:
        how = "" if open_ else ": open it in a browser, or add --open"
        console().print(f"{page} ({page.stat().st_size / 1e6:.1f} MB){how}", highlight=False)
    if open_:
        typer.launch(page.resolve().as_uri())
