"""The views without a front end: tables in plain text and HTML, from the same data as the drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.widgets.own import own_table
from ssd_lab.widgets.view_model.steps import Step

Data = dict[str, Any]
FEW = 12


def summary_table(data: Data) -> Table:
    """One line a run."""
    rows = []
    for run in data["runs"]:
        steps = [step for request in run["requests"] for step in request["steps"]]
        tokens = sum(step["num_emitted"] for step in steps)
        cache = run["cache"]
        rows.append(
            [
                run["name"] if run["exact"] else f"{run['name']} (not exact)",
                str(len(run["requests"])),
                str(len(steps)),
                str(tokens),
                f"{(sum(s['num_accepted'] for s in steps) + len(steps)) / len(steps):.2f}" if steps else "-",
                "-" if run["acceptance"]["rate"] is None else f"{run['acceptance']['rate']:.0%}",
                f"{cache['hits'] / cache['lookups']:.0%}" if cache["lookups"] else "-",
            ]
        )
    columns = ("run", "requests", "rounds", "tokens", "tokens/round", "acceptance", "cache hits")
    return _table("What was recorded", columns, rows)


def summary_html(data: Data) -> str:
    """`summary_table` for the head of a page, in a box that scrolls by itself where it is too wide."""
    return f'<div style="overflow-x:auto">{summary_table(data).turned().to_html()}</div>'


def tables(data: Data, views: Sequence[str], selection: Data, clock: str = "measured") -> list[Table]:
    """The tables of these views for the selected round, on this clock."""
    run = data["runs"][min(selection.get("run") or 0, len(data["runs"]) - 1)]
    requests = run["requests"]
    request = next((r for r in requests if r["id"] == selection.get("request")), requests[0] if requests else None)
    if request is None or not request["steps"]:
        return [summary_table(data)]
    number = min(selection.get("step") or 0, len(request["steps"]) - 1)
    step = request["steps"][number]
    made = {
        "story": lambda: story_table(run, step, number),
        "race": lambda: race_table(data),
        "stepper": lambda: step_table(run, step, number),
        "text": lambda: text_table(run, request),
        "cache": lambda: cache_table(run, step, number),
        "acceptance": lambda: acceptance_table(run),
        "features": lambda: features_table(run, step, number),
        "slots": lambda: slots_table(run, step, number),
        "timeline": lambda: timeline_table(run, clock),
    }
    found: list[Table] = []
    for view in views:
        kind, _, only = view.partition(":")
        if kind == "own":
            drawn = [one for one in run.get("own", ()) if only in ("", one["name"])]
            found += [own_table(one, first_round=run["first_round"], most=FEW) for one in drawn]
        else:
            found.append(made[kind]())
    return found


def race_table(data: Data) -> Table:
    """How long each run took for its first request, on each of its clocks."""
    rows = []
    for run in data["runs"]:
        steps = run["requests"][0]["steps"] if run["requests"] else []
        for clock in run["clocks"] if steps else []:
            first, last = clock["rounds"][0][0], clock["rounds"][steps[-1]["round"] - run["first_round"]][1]
            tokens = sum(step["num_emitted"] for step in steps)
            rows.append(
                [run["name"], clock["note"], f"{tokens} tokens in {len(steps)} passes", f"{last - first:.3f} s"]
            )
    return _table("The race", ("run", "clock", "text", "time"), rows)


def story_table(run: Data, step: Step, number: int) -> Table:
    """The round in words, for pages without a script."""
    drafted = [token(run, one) for one in step["draft_tokens"]]
    accepted, own = step["num_accepted"], token(run, step["recovery_token"])
    rows = [["The target alone", "one token for each pass over its weights"]]
    if drafted:
        rows += [
            ["The draft guesses", " ".join(drafted)],
            ["The target checks", "all in one pass: " + " ".join(f"{prob:.2f}" for prob in step["target_probs"])],
            ["Kept", " ".join(drafted[:accepted]) or "none"],
        ]
    if accepted < len(drafted):
        rows.append(["Rejected", f"{drafted[accepted]}; what came after it is not used"])
    rows.append(["The target writes", own])
    if step["tree"] is not None and not step["tree"]["verified"]:
        verdict = "a hit: it was prepared" if step["branch"] is not None else "a miss: it was not prepared"
        rows.append(["Prepared meanwhile", f"{len(step['tree']['branches'])} outcomes; the one that came is {verdict}"])
    return _table(f"Round {number + 1}, told", ("what", "with which tokens"), rows)


def step_table(run: Data, step: Step, number: int) -> Table:
    """The round's draft tokens and the recovery token, with their probabilities."""
    accepted = step["num_accepted"]
    rows = [
        [
            str(place + 1),
            token(run, drafted),
            f"{step['target_probs'][place]:.3f}",
            f"{step['draft_probs'][place]:.3f}",
            "accepted" if place < accepted else "rejected" if place == accepted else "not tested",
        ]
        for place, drafted in enumerate(step["draft_tokens"])
    ]
    last = "bonus" if accepted == len(step["draft_tokens"]) else "recovery"
    rows.append([str(accepted + 1), token(run, step["recovery_token"]), f"{step['recovery_prob']:.3f}", "-", last])
    return _table(f"Round {number + 1} ({step['origin']})", ("place", "token", "target", "draft", "verdict"), rows)


def text_table(run: Data, request: Data) -> Table:
    """Round by round, what entered the text."""
    rows = []
    for number, step in enumerate(request["steps"]):
        own = [token(run, token_id) for token_id, of, _ in request["tokens"] if of == number]
        rows.append([str(number + 1), step["origin"], str(step["num_accepted"]), " ".join(own)])
    return _table(f"Request {request['id']}", ("round", "origin", "accepted", "tokens"), rows)


def cache_table(run: Data, step: Step, number: int) -> Table:
    """What was prepared at the real accepted length, the row that was hit marked."""
    tree = step["tree"]
    if tree is None or tree["verified"]:
        return _table(f"Round {number + 1}: no cache was prepared", ("accepted", "recovery token", "draft"), [])
    rows = [
        [
            str(parent + 1),
            ("★ " if branch == step["branch"] else "") + token(run, tree["tokens"][start]),
            f"{tree['draft_probs'][start]:.3f}",
        ]
        for branch, (start, _, parent) in enumerate(tree["branches"])
        if parent == step["num_accepted"] - 1
    ]
    word = "hit" if step["branch"] is not None else "miss"
    if word == "miss" and step["missed_by"]:
        word = f"miss, the recovery token was candidate {step['recovery_rank'] + 1}"
        if step.get("beyond_ranked"):
            word = f"miss, the recovery token was not among the first {step['recovery_rank']} candidates"
    return _table(f"Round {number + 1}: {word}", ("accepted", "recovery token", "draft"), rows)


def acceptance_table(run: Data) -> Table:
    """Observed beside expected acceptance by position."""
    rows = [
        [
            str(place + 1),
            str(row["tested"]),
            str(row["accepted"]),
            f"{row['observed']:.1%}",
            "-" if row["expected"] is None else f"{row['expected']:.1%}",
        ]
        for place, row in enumerate(run["acceptance"]["by_position"])
    ]
    return _table("Acceptance by position", ("position", "tested", "kept", "observed", "expected"), rows)


def slots_table(run: Data, step: Step, number: int) -> Table:
    """What the target's pass writes to its KV cache, and what stays of it."""
    tree = step["tree"] if step["tree"] is not None and step["tree"]["verified"] else None
    written = step["draft_tokens"] if tree is None else tree["tokens"]
    kept, last = step["num_accepted"], step["position"] - 1
    rows = [
        ["held before", str(last), "the text but its last token"],
        ["written", str(1 + len(written)), f"slots {last} to {last + len(written)}: that token, then what was drafted"],
        ["kept", str(1 + kept), f"slots {last} to {last + kept}"],
        ["rolled back", str(len(written) - kept), "the next pass writes over them"],
    ]
    return _table(f"Round {number + 1}: the KV cache", ("what", "slots", "which"), rows)


def features_table(run: Data, step: Step, number: int) -> Table:
    """What each guess of an EAGLE3 head was made from."""
    if run["features"] is None:
        return _table("Only a run of eagle3 reads features of the target", ("guess", "from"), [])
    layers = ", ".join(map(str, run["features"]["layers"]))
    rows = [
        [
            token(run, drafted),
            f"features at the inputs of layers {layers}" if own_features(step, place) else "own state",
        ]
        for place, drafted in enumerate(step["draft_tokens"])
    ]
    return _table(f"Round {number + 1}: what flows into the guesses", ("guess", "from"), rows)


def own_features(step: Step, place: int) -> bool:
    """Does this guess start from the target's features? One prepared before the outcome was known does not."""
    return place == 0 and step["origin"] != "hit"


def timeline_table(run: Data, clock: str) -> Table:
    """The first rounds' spans, in milliseconds."""
    shown = next((one for one in run["clocks"] if one["name"] == clock), run["clocks"][0])
    rows = [
        ["before" if of < 0 else str(of + 1), lane, kind, f"{start * 1e3:.3f}", f"{end * 1e3:.3f}"]
        for lane, kind, start, end, of in shown["spans"][:FEW]
    ]
    return _table(f"First spans, {shown['note']}", ("round", "lane", "kind", "from ms", "to ms"), rows)


def token(run: Data, token_id: int) -> str:
    """A token's text with its spaces and line breaks visible, or its number."""
    text = run["texts"].get(str(token_id))
    if text is None:
        return f"#{token_id}"
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "∅"


def _table(lead: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Words rather than numbers: all at the left."""
    return Table(columns, rows, lead, sides=["left"] * len(columns))
