"""The exercises by number, `notebook-exercise`; one file a notebook."""

from ssd_lab.notebooks.checking import Exercise
from ssd_lab.notebooks.exercises import asynchronous, from_scratch, hardware, own_strategy, quick_start

EXERCISES: dict[str, Exercise] = {
    f"{notebook}-{number}": exercise
    for notebook, exercises in (
        ("01", quick_start.EXERCISES),
        ("02", from_scratch.EXERCISES),
        ("04", asynchronous.EXERCISES),
        ("08", own_strategy.EXERCISES),
        ("09", hardware.EXERCISES),
    )
    for number, exercise in enumerate(exercises, 1)
}
