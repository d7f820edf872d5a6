"""`ssd-lab models inflate`: a small model as one of full size, of the same function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, folded, print_json, show_progress
from ssd_lab.common.places import ensure_writable
from ssd_lab.errors import ConfigError

NAME = "inflate"
HELP = "Write a model of full size that computes the function of a small one (--list: the sizes)."


def command(
    geometry: Annotated[
        str | None, typer.Option("--geometry", help="The size: llama-8b, qwen3-32b, ... (--list).", show_default=False)
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="bundled-target, bundled-draft, a folder, .gguf file or hub id.")
    ] = "bundled-target",
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default=False)] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option("--device", help="Where tensors are made: cpu, cuda or cuda:N.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="Of the noise in idle weights.")] = 0,
    list_: Annotated[bool, typer.Option("--list", help="List the geometries and write nothing.")] = False,
    json_: options.Json = False,
) -> None:
    """Write the checkpoint; called again after an interruption, go on where it stopped."""
    if list_:
        _list(json_)
        return
    if geometry is None or out is None:
        raise ConfigError("give --geometry NAME and --out FOLDER, or --list to see the geometries")
    from ssd_lab.assembly.build import resolve_device
    from ssd_lab.models.inflate.folder import write_inflated

    where = str(resolve_device(device))
    ensure_writable(out if out.exists() else out.parent, "--out", folder=True)
    written = write_inflated(geometry, source, out, dtype=dtype, device=where, seed=seed, progress=show_progress())
    if json_:
        print_json({**dataclasses.asdict(written), "folder": str(written.folder)})
        return
    from rich.text import Text

    lines = [
        f"{written.folder}: {written.num_parameters / 1e9:.2f} B parameters, {written.bytes / 1e9:.2f} GB in "
        f"{written.shards} files" + (f", {written.resumed} of them there already" if written.resumed else ""),
        "small weights are copied bit for bit, or times a power of two"
        if written.exact
        else "small weights are copied bit for bit, but for norms or queries that are rounded once "
        "(docs/guides/full-size.md)",
        *(f"note: {note}" for note in written.notes),
    ]
    console().print(Text("\n".join(lines)), soft_wrap=True)


def _list(as_json: bool) -> None:
    from ssd_lab.models.inflate.geometry import GEOMETRIES

    if as_json:
        print_json(
            {
                name: {
                    **dataclasses.asdict(geometry.config),
                    "repository": geometry.repository,
                    "parameters": geometry.num_parameters,
                    "bytes": geometry.bytes,
                    "step_bytes": geometry.step_bytes,
                }
                for name, geometry in GEOMETRIES.items()
            }
        )
        return
    console().print(_table(GEOMETRIES))
    console().print("\n".join(_too_small(GEOMETRIES)), markup=False, soft_wrap=True)


def _table(geometries: dict[str, Any]) -> Any:
    rows = [
        (
            name,
            f"{geometry.config.hidden_size:,}",
            str(geometry.config.num_layers),
            f"{geometry.config.num_heads}/{geometry.config.num_kv_heads}",
            str(geometry.config.head_dim),
            f"{geometry.config.mlp_size:,}",
            f"{geometry.config.vocab_size:,}",
            f"{geometry.num_parameters / 1e9:.2f} B",
            f"{geometry.bytes / 1e9:.1f}",
        )
        for name, geometry in geometries.items()
    ]
    return folded(("geometry", "hidden", "layers", "heads", "of", "MLP", "tokens", "weights", "GB"), rows)


def _too_small(geometries: dict[str, Any]) -> list[str]:
    """Where the bundled target has no room, and its draft has."""
    from ssd_lab import demo
    from ssd_lab.errors import ModelLoadError
    from ssd_lab.models.files.checkpoint import read_shape
    from ssd_lab.models.inflate.plan import plan_inflation

    lines = []
    for name, geometry in geometries.items():
        fitting = []
        for small in demo.NAMED:
            try:
                plan_inflation(read_shape(small), geometry.config, name)
                fitting.append(small)
            except ModelLoadError:
                continue
        if len(fitting) < len(demo.NAMED):
            lines.append(f"{name} has room for --from {' or '.join(fitting) or 'other models'} only")
    return lines
