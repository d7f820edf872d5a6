"""`ssd-lab profile`: what this machine takes for each phase of a round, beside the time that its bytes need."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress
from ssd_lab.errors import ConfigError


def command(
    target: options.Target = None,
    draft: options.Draft = None,
    geometry: Annotated[
        str | None, typer.Option("--geometry", help="A published shape for the target, with inflated weights.")
    ] = None,
    draft_geometry: Annotated[
        str | None, typer.Option("--draft-geometry", help="The same for the draft; None: the family's smallest.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draft tokens a round.")] = 7,
    f: Annotated[int, typer.Option("--f", min=1, help="Fan-out at each accepted length.")] = 3,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Repeatable.")] = None,
    contexts: Annotated[
        list[int] | None, typer.Option("--context", help="Tokens before the round; repeatable.")
    ] = None,
    rounds: Annotated[bool, typer.Option("--rounds/--no-rounds", help="Whole runs too, at the first batch.")] = True,
    prompts: Annotated[
        bool,
        typer.Option("--prompts", help="Instead: prompts to their first token, whole runs, a late prompt."),
    ] = False,
    peer: Annotated[
        bool, typer.Option("--peer/--no-peer", help="With --prompts: transformers on the same weights beside ours.")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Predict rounds with the simulator, and set recorded ones beside them.")
    ] = False,
    eager: Annotated[bool, typer.Option("--eager", help="Without CUDA graphs.")] = False,
    name: Annotated[str, typer.Option("--name", help="Of the hardware profile.")] = "this-machine",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for measurement.json, hardware.json and report.md.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Measure, show the table, and keep what the simulator takes (`--hardware hardware.json`)."""
    sources = _sources(target, draft, geometry, draft_geometry)

    import dataclasses

    from ssd_lab.assembly.build import resolve_device
    from ssd_lab.common.device_guard import current
    from ssd_lab.display.environment import describe
    from ssd_lab.models.loader import load_model
    from ssd_lab.profile import measure, report
    from ssd_lab.profile.rounds import measure_rounds

    place = str(resolve_device(device))
    progress = show_progress()
    if prompts:
        _prompts(sources, k, place, dtype, eager, peer, out, json_)
        return
    models = [load_model(source, dtype=dtype, device=place, progress=progress) for source in sources]
    sizes = measure.Sizes(
        k=k,
        fan_out=(f,) * (k + 1),
        batches=tuple(batches or (1, 4, 16)),
        contexts=tuple(contexts or ((512, 8192) if place != "cpu" else (256,))),
    )

    def shown(point: object) -> None:
        if progress:
            console(stderr=True).print(str(point), markup=False, highlight=False)

    with current(place):
        measured = measure.measure_phases(models[0], models[1], sizes, eager=eager, on_point=shown)
        if rounds:
            measured = dataclasses.replace(measured, rounds=measure_rounds(models[0], models[1], sizes))
    measured = dataclasses.replace(measured, surroundings=describe())
    hardware = measure.hardware_profile(measured, name)
    checked = []
    if check:
        from ssd_lab.profile.check import check_rounds

        with current(place):
            checked = check_rounds(
                models[0], models[1], phases=hardware, k=k, f=f, device=place, dtype=dtype, eager=eager
            )
    text = report.markdown(measured, command=shlex.join(["ssd-lab", *sys.argv[1:]]))
    if checked:
        text += "\n" + report.check_markdown(checked)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "measurement.json").write_text(json.dumps(measured.as_dict(), indent=1) + "\n", encoding="utf-8")
        (out / "report.md").write_text(text, encoding="utf-8")
        hardware.save(out / "hardware.json")
    if json_:
        print_json(measured.as_dict() | ({"check": [{**vars(c), "error": c.error} for c in checked]} if check else {}))
    else:
        console().print(text, markup=False, highlight=False, soft_wrap=True)


def _prompts(
    sources: list[str], k: int, place: str, dtype: str, eager: bool, peer: bool, out: Path | None, json_: bool
) -> None:
    """Measure prompts and whole runs, and show them."""
    import torch

    from ssd_lab.common.device_guard import current
    from ssd_lab.models.loader import load_model, resolve_dtype
    from ssd_lab.profile.peer_prefill import peer_times
    from ssd_lab.profile.prompts import REPEATS, markdown, measure_prompts, shapes

    def shown(line: str) -> None:
        if show_progress():
            console(stderr=True).print(line, markup=False, highlight=False)

    progress = show_progress()
    with current(place):
        kind, where = resolve_dtype(dtype, place), torch.device(place)
        peers = {}
        if peer:
            peers = peer_times(sources[0], dtype=kind, device=where, shapes=shapes(), repeats=REPEATS)
        target, draft = (load_model(source, dtype=dtype, device=place, progress=progress) for source in sources)
        measured = measure_prompts(
            target, draft, k=k, peers=peers, on_line=shown, device=place, dtype=dtype, eager=eager
        )
    text = markdown(measured, command=shlex.join(["ssd-lab", *sys.argv[1:]]))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "prompts.json").write_text(json.dumps(measured.as_dict(), indent=1) + "\n", encoding="utf-8")
        (out / "prompts.md").write_text(text, encoding="utf-8")
    if json_:
        print_json(measured.as_dict())
    else:
        console().print(text, markup=False, highlight=False, soft_wrap=True)


def _sources(target: str | None, draft: str | None, geometry: str | None, draft_geometry: str | None) -> list[str]:
    """The target's and the draft's."""
    from ssd_lab import demo

    if geometry is not None:
        if target is not None or draft is not None:
            raise ConfigError("--geometry inflates the bundled pair: leave --target and --draft out")
        smallest = "qwen3-0.6b" if geometry.startswith("qwen") else "llama-1b"
        return [f"inflated:{geometry}:bundled-target", f"inflated:{draft_geometry or smallest}:bundled-draft"]
    if draft_geometry is not None:
        raise ConfigError("--draft-geometry goes with --geometry")
    if target is not None and draft is None:
        raise ConfigError("--target needs a --draft beside it: a profile holds the times of both")
    return [target or str(demo.TARGET), draft or str(demo.DRAFT)]
