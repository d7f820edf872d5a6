"""All that the views of one or several runs need, as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.trace import RequestRecord, Trace
from ssd_lab.trace.named import named_traces
from ssd_lab.trace.token_texts import Decode, token_texts
from ssd_lab.widgets.own import VIEWS
from ssd_lab.widgets.view_model.acceptance import acceptance_view
from ssd_lab.widgets.view_model.lanes import clocks, measured_clock
from ssd_lab.widgets.view_model.numbers import short
from ssd_lab.widgets.view_model.presets import opening, presets
from ssd_lab.widgets.view_model.rescoring import hit_curve, power_law
from ssd_lab.widgets.view_model.steps import Step, steps_of, text_tokens

FORMAT = 1


def view_data(
    traces: Trace | Mapping[str, Trace], *, decode: Decode | None = None, max_rounds: int | None = None
) -> dict[str, Any]:
    """JSON for the front end: `{"format": 1, "runs": [...], "opening": {...}}`: a run a trace, and what to show first.

    decode: token ids to text, for traces that do not hold their tokens' texts. max_rounds: show only so many rounds of
    each trace (the run says so in `left_out`). Raises ConfigError if there is no trace.
    """
    named = named_traces(traces)
    if not named:
        raise ConfigError("no trace to show: give one, or a dictionary of them by name")
    runs = [run_view(name, trace, decode, max_rounds) for name, trace in named.items()]
    return {"format": FORMAT, "runs": runs, "opening": opening(runs)}


def run_view(
    name: str, trace: Trace, decode: Decode | None = None, max_rounds: int | None = None, *, ended: bool = True
) -> dict[str, Any]:
    """One run: its requests with their steps, the tokens' texts, clocks, acceptance and cache.

    ended: with the simulator's clock beside the measured one, and the user's own views (`own`, if there are any).
    """
    left_out = 0 if max_rounds is None else max(0, len(trace.rounds) - max_rounds)
    if left_out:
        trace = replace(trace, rounds=trace.rounds[:max_rounds])
    steps = steps_of(trace)
    records = {request.request_id: request for request in trace.requests}
    requests = [request_view(number, records.get(number), taken) for number, taken in steps.items()]
    own = VIEWS.documents(trace) if ended else []
    return {
        "name": name,
        "strategy": trace.meta.get("strategy") or {},
        "exact": trace.meta.get("exact") is True,
        "lossy_reason": trace.meta.get("lossy_reason"),
        "first_round": trace.rounds[0].index if trace.rounds else 0,
        "left_out": left_out,
        "block_size": (trace.meta.get("engine") or {}).get("block_size"),
        "features": trace.meta.get("features"),
        "texts": token_texts(trace, decode),
        "requests": requests,
        "clocks": clocks(trace) if ended else [measured_clock(trace)],
        **({"own": own} if own else {}),
        **over_all_rounds(steps, sampled={request["id"]: request["temperature"] > 0 for request in requests}),
    }


def over_all_rounds(steps: Mapping[int, Sequence[Step]], *, sampled: Mapping[int, bool]) -> dict[str, Any]:
    """What is told of all steps together: presets, acceptance, cache. sampled: requests at a temperature above 0."""
    every_step = [step for own in steps.values() for step in own]
    curve = hit_curve(every_step)
    law = power_law(curve)
    return {
        "presets": presets(steps),
        "acceptance": acceptance_view(steps, sampled=sampled),
        "cache": {
            "lookups": sum(step["cache_hit"] is not None for step in every_step),
            "hits": sum(step["cache_hit"] is True for step in every_step),
            "curve": [short(rate) for rate in curve],
            "power_law": None if law is None else [short(law[0]), short(law[1])],
        },
    }


def request_view(number: int, record: RequestRecord | None, steps: list[Step]) -> dict[str, Any]:
    """A request and its steps; `record` is None while it runs."""
    params = record.params if record is not None else {}
    return {
        "id": number,
        "prompt": record.prompt if record is not None else None,
        "finish_reason": record.finish_reason if record is not None else None,
        "temperature": float(params.get("temperature") or 0.0),
        "tokens": text_tokens(steps),
        "steps": steps,
    }
