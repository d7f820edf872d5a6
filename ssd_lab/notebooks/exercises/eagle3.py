"""Notebook 7."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_HIDDEN = 4096

EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: 3 * _HIDDEN,
        "three vectors of the residual stream, side by side",
        slips={
            "that is what comes out of it": lambda: _HIDDEN,
            "that is the layer's input: embedding and g": lambda: 2 * _HIDDEN,
        },
    ),
    Number(
        lambda: 2 - 1,
        "and a head that reads one layer off still runs, only worse",
        slips={"the input of a layer is the output of the one before": lambda: 2},
    ),
    Choice(
        lambda: "own",
        "its own hidden state, before the last norm, takes the place of g",
        {
            "target": "the target has not read the first guess yet",
            "none": "the layer always has two inputs; what does training unroll?",
        },
    ),
    Choice(
        lambda: "recovery",
        "q is 0 there, so the whole of p is in the residual",
        {"never": "the text must follow p, whatever the head can name", "draft": "the head cannot name it"},
    ),
)
