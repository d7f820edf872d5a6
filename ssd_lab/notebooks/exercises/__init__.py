"""The exercises by number, `notebook-exercise`; one file a notebook."""

from ssd_lab.notebooks.exercises import (
    asynchronous,
    eagle3,
    from_scratch,
    full_scale,
    hardware,
    own_strategy,
    quick_start,
    saguaro,
    schedules,
    server,
    story,
    trees,
)
from ssd_lab.notebooks.judging import Exercise

EXERCISES: dict[str, Exercise] = {
    f"{notebook}-{number}": exercise
    for notebook, exercises in (
        ("00", story.EXERCISES),
        ("01", quick_start.EXERCISES),
        ("02", from_scratch.EXERCISES),
        ("03", trees.EXERCISES),
        ("04", asynchronous.EXERCISES),
        ("05", schedules.EXERCISES),
        ("06", saguaro.EXERCISES),
        ("07", eagle3.EXERCISES),
        ("08", own_strategy.EXERCISES),
        ("09", hardware.EXERCISES),
        ("10", full_scale.EXERCISES),
        ("11", server.EXERCISES),
    )
    for number, exercise in enumerate(exercises, 1)
}
