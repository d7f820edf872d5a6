"""`ssd-lab profile`: what this machine takes for each phase of a round, beside the time that its bytes need."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, print_markdown, show_progress
from ssd_lab.common.places import ensure_writable, write_text
from ssd_lab.errors import ConfigError, RunInterrupted, SsdLabError

if TYPE_CHECKING:
    from ssd_lab.profile.points import Measurement


def command(
    target: options.Target = None,
    draft: options.Draft = None,
    geometry: Annotated[
        str | None, typer.Option("--geometry", help="A published shape for the target, with inflated weights.")
    ] = None,
    draft_geometry: Annotated[
        str | None, typer.Option("--draft-geometry", help="The same for the draft; None: the family's smallest.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="EAGLE3 head for whole runs: hub id or folder. None: the bundled target's own."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draft tokens a round.")] = 7,
    f: Annotated[int, typer.Option("--f", min=1, help="Fan-out at each accepted length.")] = 3,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Repeatable.")] = None,
    contexts: Annotated[
        list[int] | None, typer.Option("--context", help="Tokens before the round; repeatable.")
    ] = None,
    ranks: Annotated[
        list[int] | None,
        typer.Option("--ranks", min=2, help="One rank's part of a target over so many devices too; repeatable."),
    ] = None,
    rounds: Annotated[bool, typer.Option("--rounds/--no-rounds", help="Whole runs too.")] = True,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", "-s", help="Whole runs of this one; repeatable. None: all.")
    ] = None,
    prompts: Annotated[
        bool,
        typer.Option("--prompts", help="Too: prompts to their first token, 48 requests as a whole, a late prompt."),
    ] = False,
    peer: Annotated[
        bool, typer.Option("--peer/--no-peer", help="With --prompts: transformers on the same weights beside ours.")
    ] = True,
    starts: Annotated[
        bool, typer.Option("--starts", help="Too: a whole process to its first token, nothing compiled and compiled.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Twice the runs: half of them beside what the simulator says of them."),
    ] = False,
    passes: Annotated[int, typer.Option("--passes", min=1, help="Whole runs of each kind.")] = 2,
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
    if check and not rounds:
        raise ConfigError("--check needs whole runs: leave --no-rounds out")
    sources = sources_of(target, draft, geometry, draft_geometry)
    if out is not None:
        ensure_writable(out, "--out", folder=True)

    import dataclasses

    from ssd_lab.assembly.build import resolve_device
    from ssd_lab.common.device_guard import current
    from ssd_lab.display.environment import describe
    from ssd_lab.models.eagle3.loader import read_eagle3_config
    from ssd_lab.models.loader import load_model
    from ssd_lab.profile import measure, report
    from ssd_lab.profile.check import check_rounds
    from ssd_lab.profile.further import Step, further
    from ssd_lab.profile.peer_prefill import peer_seconds
    from ssd_lab.profile.prompts import measure_prompts
    from ssd_lab.profile.rounds import HeldOut, measure_rounds
    from ssd_lab.profile.slices import measure_slice
    from ssd_lab.profile.starts import measure_starts

    place = str(resolve_device(device))
    progress = show_progress()
    peers = peer_seconds(sources[0], place, dtype) if prompts and peer else {}  # before ours take the memory
    models = [load_model(source, dtype=dtype, device=place, progress=progress) for source in sources]
    if head is not None:
        read_eagle3_config(head, models[0].config)  # what is no head of this target is told before the work
    sizes = measure.Sizes(
        k=k,
        fan_out=(f,) * (k + 1),
        batches=tuple(batches or (1, 4, 16)),
        contexts=tuple(contexts or ((512, 8192) if place != "cpu" else (256,))),
    )

    def shown(point: object) -> None:
        if progress:
            console(stderr=True).print(str(point), markup=False, highlight=False)

    held_out: list[HeldOut] = []
    stopped: RunInterrupted | None = None
    with current(place):
        try:
            measured = measure.measure_phases(models[0], models[1], sizes, eager=eager, on_point=shown)
        except RunInterrupted as interruption:
            measured, stopped = interruption.result, interruption
        if rounds and not measured.unusable and stopped is None:
            phases = measure.hardware_profile(measured, name)
            told = held_out if check else None
            try:
                own = measure_rounds(
                    models[0], models[1], sizes, phases=phases, held_out=told, only=strategies or (), head=head,
                    passes=passes,
                )  # fmt: skip
            except RunInterrupted as interruption:
                own, stopped = interruption.result, interruption
            measured = dataclasses.replace(measured, rounds=own)
        engine: dict[str, Any] = {"device": place, "dtype": dtype, "eager": eager}

        def part(count: int, known: Measurement) -> Measurement:
            found = measure_slice(sources[0], count, sizes, on_point=shown, **engine)
            return dataclasses.replace(known, slices=[*known.slices, found])

        def waits(known: Measurement) -> Measurement:
            found = measure_prompts(*models, k=k, peers=peers, on_line=shown, **engine)
            return dataclasses.replace(known, prompts=found)

        def processes(known: Measurement) -> Measurement:
            pair = {"target": sources[0], "draft": sources[1], "k": k, "f": f}
            return dataclasses.replace(known, starts=measure_starts("async_tree", pair | engine))

        steps: list[Step] = [partial(part, count) for count in ranks or ()]
        if prompts:
            steps.append(waits)
        if starts:
            steps.append(processes)
        failure: SsdLabError | RunInterrupted | None = None
        if stopped is None:
            measured, failure = further(measured, steps)
    if stopped is not None:
        _show_cut(measured, stopped, json_)
        raise stopped
    measured = dataclasses.replace(measured, surroundings=describe())
    hardware, problem = None, None
    try:
        hardware = measure.hardware_profile(measured, name)
    except ConfigError as error:
        problem = str(error)
    checked = check_rounds(held_out, hardware) if hardware is not None else []
    text = report.markdown(measured, command=shlex.join(["ssd-lab", *sys.argv[1:]]))
    if checked:
        text += "\n" + report.check_markdown(checked)
    if json_:
        of_check = [{**vars(one), "error": one.error, "ratios": one.ratios} for one in checked]
        cut = {"interrupted": True} if isinstance(failure, RunInterrupted) else {}
        print_json(measured.as_dict() | ({"check": of_check} if check else {}) | cut)
    else:
        print_markdown(text)
    if out is not None:
        write_text(out / "measurement.json", json.dumps(measured.as_dict(), indent=1) + "\n")
        write_text(out / "report.md", text)
        if hardware is not None:
            hardware.save(out / "hardware.json")
            said = f"wrote {out}; go on with: ssd-lab simulate TRACE --hardware {out / 'hardware.json'}"
            console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
    if failure is not None:
        raise failure
    if problem is not None:
        raise ConfigError(problem)


def _show_cut(measured: Measurement, stopped: RunInterrupted, json_: bool) -> None:
    """What was finished; nothing is written, since a profile of it would lack the rest."""
    from ssd_lab.profile import report

    if json_:
        print_json(measured.as_dict() | {"interrupted": True})
    elif measured.points:
        print_markdown(f"INTERRUPTED, incomplete: {stopped}\n\n" + report.markdown(measured, command="ssd-lab profile"))


def sources_of(target: str | None, draft: str | None, geometry: str | None, draft_geometry: str | None) -> list[str]:
    """The target's and the draft's. Raises ConfigError for names that do not go together."""
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
