"""Verified trees in a browser: what stood where a node was tried, what decided, and what was left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ssd_lab
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace, TreeRecord
from ssd_lab.widgets.page import write_html

pytestmark = pytest.mark.browser


def test_a_tree_that_was_verified_shows_its_path_and_what_hung_off_it(open_page, tmp_path: Path):
    # 10 -> (11 -> 13, 12); 20 beside 10: the path 10, 12 was kept
    tree = TreeRecord([10, 20, 11, 12, 13], [-1, -1, 0, 0, 2], [0.5, 0.3, 0.4, 0.2, 0.1], [0.6, 0.1, 0.2, 0.7, None])
    row = SequenceRound(0, 4, [10, 12], [0.5, 0.2], [0.6, 0.7], 2, 99, 0.9, 3, "draft", tree=tree)
    path = write_html(Trace({"exact": True}, rounds=[RoundRecord(0, 0.0, 1.0, [row])]), tmp_path / "tree.html")
    with open_page(path.as_uri()) as page:
        levels = page.locator(".ssd-level")
        trunk = [level.locator(".ssd-trunk").inner_text().split("\n") for level in levels.all()]
        assert [words[1] for words in trunk[1:]] == ["#10", "#12"]
        beside = [level.locator(".ssd-branches .ssd-token").all_inner_texts() for level in levels.all()]
        assert beside == [["#20"], ["#11", "#13"], ["#99"]]
        levels.nth(1).get_by_text("#11").click()
        facts = page.locator("[data-fact]").all_inner_texts()
        assert facts == ["0.200", "0.400", "rejected: the target's likeliest token is another"]


@pytest.fixture(scope="module")
def verified_trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, str]:
    """A run of the bundled models that verifies trees, and its page."""
    options = {"temperature": 1.0, "seed": 3, "max_tokens": 60, "record_details": 6, "threads": 1, "progress": False}
    trace = ssd_lab.run("How far does a train go in 4 hours?", strategy="sync_tree", **options).trace
    return trace, write_html(trace, tmp_path_factory.mktemp("trees") / "trees.html").as_uri()


def sequences(trace: Trace) -> list[SequenceRound]:
    return [one.sequences[0] for one in trace.rounds]


def shown_facts(page: Any) -> dict[str, str]:
    read = "(facts) => Object.fromEntries(facts.map((fact) => [fact.dataset.fact, fact.innerText]))"
    return dict(page.locator("[data-fact]").evaluate_all(read))


def shown_columns(page: Any) -> dict[str, list[float]]:
    """The alternatives' table, without the tokens' column and the last row."""
    if (folded := page.locator(".ssd-numbers:not([open]) > summary")).count():
        folded.click()  # once: it stays open from node to node
    table = page.locator("[data-table=alternatives]")
    read = "(rows) => rows.map((row) => [...row.cells].slice(1).map((cell) => cell.innerText))"
    names = table.locator("thead th").all_inner_texts()
    rows = table.locator("tbody tr").evaluate_all(read)[:-1]
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(names[1:])}


def test_a_node_of_a_verified_tree_shows_its_alternatives_and_what_was_left_when_it_was_tried(
    open_page, verified_trees: tuple[Trace, str]
):
    trace, address = verified_trees
    seen = set()
    with open_page(address) as page:
        for number, record in enumerate(sequences(trace)):
            if len(seen) == 3:
                break
            page.get_by_label("Round", exact=True).fill(str(number))
            tree = record.tree
            path = [-1]
            for token in record.draft_tokens[: record.num_accepted]:
                path.append(next(n for n, up in enumerate(tree.parents) if up == path[-1] and tree.tokens[n] == token))
            for node, place in enumerate(tree.alternatives):
                page.locator(f'.ssd-tree [data-place="node:{node}"]').evaluate("(item) => item.click()")
                facts, columns = shown_facts(page), shown_columns(page)
                own = place.tokens.index(tree.tokens[node])
                p, q = place.target_probs[own], place.draft_probs[own]
                order = sorted(range(len(place.tokens)), key=lambda i: -place.target_probs[i])[:12]
                assert columns["target p"] == pytest.approx([place.target_probs[i] for i in order], rel=0.06, abs=6e-4)
                assert columns["draft q"] == pytest.approx([place.draft_probs[i] for i in order], rel=0.06, abs=6e-4)
                chance = min(1.0, p / q) if q else 1.0
                assert float(facts["chance"].split()[0]) == pytest.approx(100 * chance, abs=0.06)
                at = path.index(tree.parents[node]) if tree.parents[node] in path else None
                tried = at is not None and (at == len(path) - 1 or node <= path[at + 1])
                verdict = "accepted" if node in path else "rejected" if tried else "not tested"
                assert facts["verdict"].startswith(verdict)
                seen.add(verdict)
                if tried:
                    coin, sign, _ = facts["coin"].split()
                    assert float(coin) == pytest.approx(tree.coins[node], abs=6e-4)
                    assert (sign == "<") == (verdict == "accepted")
                if verdict == "rejected":
                    left = [max(0, place.target_probs[i] - place.draft_probs[i]) for i in order]
                    assert columns["residual max(p − q, 0)"] == pytest.approx(left, rel=0.06, abs=1.2e-3)
    assert seen == {"accepted", "rejected", "not tested"}


def test_text_and_tree_of_a_verified_tree_are_linked(open_page, verified_trees: tuple[Trace, str]):
    trace, address = verified_trees
    number = next(i for i, record in enumerate(sequences(trace)) if record.num_accepted)
    with open_page(address) as page:
        page.locator(f".ssd-word[data-step='{number}'][data-place='draft:0']").click()
        chosen = page.locator(".ssd-tree [aria-selected=true]")
        assert chosen.get_attribute("data-place").startswith("node:")
        assert "accepted" in chosen.get_attribute("aria-label")
        assert shown_facts(page)["verdict"].startswith("accepted")
        assert page.locator("[data-cache=verdict]").inner_text().startswith("This strategy keeps no speculation cache")


def test_a_certain_guess_says_how_it_was_tested(open_page, tmp_path: Path):
    row = SequenceRound(0, 4, [10], [1.0], [0.25], 0, 99, 0.5, 1, "custom", coins=None)
    request = RequestRecord(0, "a", [1], [99], "b", "stop", 0.0, 0.0, 1.0, params={"temperature": 1.0})
    trace = Trace({"exact": True}, [request], [RoundRecord(0, 0.0, 1.0, [row])])
    with open_page(write_html(trace, tmp_path / "guess.html").as_uri()) as page:
        page.locator('.ssd-tree [data-place="draft:0"]').click()
        facts = shown_facts(page)
        assert "coin" not in facts and facts["test"].startswith("a certain guess")
        page.locator(".ssd-tree [data-place=recovery]").click()
        assert "coin" not in shown_facts(page)
