"""Sampled text of the model in the page follows the target's law on every path; the modules themselves, in Chromium.

Scripted models of a few tokens, whose law is known exactly: thousands of texts in a second, and a planted fault is
found with a power that is computed from its own counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from power import ALPHA, POWER, power_of

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
from in_page_site import modules_for_tests, served

from ssd_lab.check.statistics import chi_square_survival

pytestmark = pytest.mark.browser

VOCAB, LENGTH, TEMPERATURE = 4, 4, 0.8
TEXTS, PARTS = 4000, 3  # texts of each test; parts whose p-values tell its power
RANDOM = np.random.default_rng(7)
TARGET, DRAFT = (RANDOM.normal(0, 1.2, (VOCAB * VOCAB, VOCAB)) for _ in range(2))
PATHS = {
    "chain": ("sync_chain", {"k": 2, "f": 1, "factor": 1}),
    "tree": ("async_tree", {"k": 2, "f": 1, "factor": 1}),
    "saguaro": ("async_tree", {"k": 2, "f": 2, "factor": 0.3}),
    "lookup": ("prompt_lookup", {"k": 2, "f": 1, "factor": 1}),
}
FAULTS = {
    "the recovery token is drawn from p": ("chain", "verify.js", ("Math.max(p - probs[accepted][token], 0)", "p")),
    "every draft token is kept": ("chain", "verify.js", ("coin * draft[token] < target[token]", "true")),
    "q is forgotten": ("saguaro", "verify.js", ("coin * draft[token] < target[token]", "coin < target[token]")),
    "C is hidden from verification": (
        "saguaro",
        "draft.js",
        ("prob: probs[token], probs, raw:", "prob: probs[token], probs: raw, raw:"),
    ),
}


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The modules as they are, and once more with each fault."""
    folder = tmp_path_factory.mktemp("law")
    scripts = {"right": modules_for_tests(folder / "right", {}, "right")}
    for number, (_, file, change) in enumerate(FAULTS.values()):
        scripts[f"fault{number}"] = modules_for_tests(folder / str(number), {file: change}, f"fault{number}")
    site = folder / "site"
    site.mkdir()
    loads = "".join(f'<script src="{name}.js"></script>' for name in scripts)
    (site / "index.html").write_text(f'<!doctype html><link rel="icon" href="data:,"><body>{loads}</body>')
    for name, text in scripts.items():
        (site / f"{name}.js").write_text(text, encoding="utf-8")
    with served(site) as address:
        context = browser.new_context()
        context.set_default_timeout(60_000)
        opened = context.new_page()
        opened.goto(address)
        yield opened
        context.close()


def law() -> np.ndarray:
    """Probability of each text, as the target alone would write it."""
    scaled = np.exp(TARGET / TEMPERATURE)
    probs = scaled / scaled.sum(1, keepdims=True)
    found = np.zeros(VOCAB**LENGTH)
    for cell, text in enumerate(itertools.product(range(VOCAB), repeat=LENGTH)):
        seen, found[cell] = [0, 1], 1.0
        for token in text:
            found[cell] *= probs[seen[-2] * VOCAB + seen[-1], token]
            seen.append(token)
    return found


def p_values(page: Any, path: str, module: str, parts: int = 1) -> tuple[list[float], dict[str, int]]:
    """Pearson's test of the texts of each part against the law, rare ones together; and what the paths were."""
    strategy, fields = PATHS[path]
    order = {"strategy": strategy, "fields": fields, "target": TARGET.tolist(), "draft": DRAFT.tolist(), "vocab": VOCAB}
    order |= {"temperature": TEMPERATURE, "length": LENGTH, "count": TEXTS}
    expected, found, seen = law() * TEXTS, [], {}
    common = expected >= 8
    for part in range(parts):
        seen = page.evaluate(f"(order) => {module}.counts(order)", order | {"from": 1 + part * TEXTS})
        counted = np.array(seen.pop("found"), dtype=float)
        cells = [np.append(each[common], each[~common].sum()) for each in (counted, expected)]
        statistic = float(((cells[0] - cells[1]) ** 2 / cells[1]).sum())
        found.append(chi_square_survival(statistic, len(cells[0]) - 1))
    return found, seen


@pytest.mark.quick("tree")
@pytest.mark.grid(most=3)
@pytest.mark.parametrize("path", PATHS)
def test_sampled_text_follows_the_targets_law(page: Any, path: str):
    (p_value,), seen = p_values(page, path, "right")
    assert p_value > ALPHA
    assert seen["accepted"] > TEXTS / 4, "draft tokens entered the texts"
    if path in ("tree", "saguaro"):
        assert min(seen["hits"], seen["misses"]) > TEXTS / 10, "both ways of an asynchronous round"


@pytest.mark.grid(most=3)
@pytest.mark.parametrize(
    "fault", [next(iter(FAULTS)), *(pytest.param(f, marks=pytest.mark.full) for f in [*FAULTS][1:])]
)
def test_a_planted_fault_is_found(page: Any, fault: str):
    found, _ = p_values(page, FAULTS[fault][0], f"fault{list(FAULTS).index(fault)}", PARTS)
    assert power_of(found, ALPHA) > POWER, found
