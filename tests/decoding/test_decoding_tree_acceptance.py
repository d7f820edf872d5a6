"""Tree verification keeps the target's distribution: in closed form on tiny vocabularies, and drawn on larger ones."""

from __future__ import annotations

import functools
import itertools
import random

import pytest
import torch
from decoding import tree_twin
from decoding.chi_square import chi_square_p
from hypothesis import given, settings
from hypothesis import strategies as st
from power import ALPHA
from torch._subclasses import FakeTensorMode

from ssd_lab.decoding import tree_acceptance
from ssd_lab.decoding.random import MAX_SIBLINGS, Purpose, uniform
from ssd_lab.decoding.sampling import sample
from ssd_lab.decoding.tree import ancestors
from ssd_lab.decoding.tree_acceptance import (
    TreeOutcome,
    accept_tree_certain,
    accept_tree_greedy,
    accept_tree_sampled,
    child_table,
)
from ssd_lab.decoding.tree_draws import draw_top, draw_without_replacement

SHAPES = {
    "chain": [-1, 0, 1],
    "two children": [-1, -1],
    "three children, then two": [-1, -1, -1, 0, 0, 1],
    "uneven": [-1, -1, 0, 0, 0, 2],
}
DRAWN = 24_000
LARGE = 1e-40  # far beyond ALPHA: other numbers, at whose score a spread of one is little, find these faults too


def model(seed: int, vocab: int, temperature: float = 1.0, zeros: float = 0.0) -> tree_twin.Distribution:
    """A distribution after each text, some tokens impossible (as under top-p)."""

    @functools.cache
    def after(text: tuple[int, ...]) -> list[float]:
        chance = random.Random(f"{seed} {text}")
        logits = [chance.gauss(0, 1.5) for _ in range(vocab)]
        weights = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, 0)
        mask = torch.tensor([chance.random() >= zeros for _ in range(vocab)])
        mask[chance.randrange(vocab)] = True
        weights = torch.where(mask, weights, 0.0)
        return (weights / weights.sum()).tolist()

    return after


def sizes(parents: list[int]) -> tuple[int, int]:
    """Depth and width."""
    return max(map(len, ancestors(parents))), max(parents.count(node) for node in set(parents))


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rule_is_exact_in_closed_form(shape: str, zeros: float) -> None:
    """Over every draw and every coin: the next three tokens have the target's law."""
    for seed in range(4):
        p, q = model(seed, 3, zeros=zeros), model(seed + 100, 3, zeros=zeros)
        law = tree_twin.emitted_law(p, q, SHAPES[shape])
        assert sum(law.values()) == pytest.approx(1)
        assert tree_twin.distance(tree_twin.first_tokens(law, 3, 3, p), tree_twin.target_law(3, 3, p)) < 1e-12


@pytest.mark.parametrize(
    "rule",
    [
        {"remove": lambda q, token: q},
        {"leave": lambda p, q: p},
        {"chance": lambda p, q: float(p >= q)},
    ],
    ids=["siblings stay in q", "p is not updated", "greedy"],
)
def test_the_closed_form_sees_wrong_rules(rule: dict) -> None:
    p, q = model(1, 4), model(101, 4)
    law = tree_twin.emitted_law(p, q, SHAPES["three children, then two"], **rule)
    assert tree_twin.distance(tree_twin.first_tokens(law, 2, 4, p), tree_twin.target_law(2, 4, p)) > 0.005


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(sorted(SHAPES)), zeros=st.sampled_from([0.0, 0.5]))
def test_the_batched_walk_decides_as_the_slow_one(seed: int, shape: str, zeros: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    parents = SHAPES[shape]
    depth, width = sizes(parents)
    batch, nodes, vocab = 5, len(parents), 6
    target, draft = (random_probs(generator, batch, nodes + 1, vocab, zeros=zeros) for _ in range(2))
    tokens = torch.randint(vocab, (batch, nodes), generator=generator)
    valid = torch.rand(batch, nodes, generator=generator) < 0.8
    accept = torch.rand(batch, depth, width, generator=generator)
    recover = torch.rand(batch, depth + 1, generator=generator)
    outcome = accept_tree_sampled(
        target, tokens, torch.tensor([parents] * batch), draft, accept, recover, depth=depth, width=width, valid=valid
    )
    for row in range(batch):
        path, token = tree_twin.verify(
            target[row].tolist(), draft[row].tolist(), tokens[row].tolist(), parents, valid[row].tolist(),
            accept[row].tolist(), recover[row].tolist(),
        )  # fmt: skip
        assert outcome.path[row].tolist() == path + [-1] * (depth - len(path))
        assert (int(outcome.num_accepted[row]), int(outcome.recovery_token[row])) == (len(path), token)


def random_probs(generator: torch.Generator, *shape: int, zeros: float) -> torch.Tensor:
    probs = torch.softmax(torch.randn(*shape, generator=generator, dtype=torch.float64) * 2, -1)
    mask = torch.rand(*shape, generator=generator) < zeros
    mask[..., 0] = False
    probs = torch.where(mask, 0.0, probs)
    return probs / probs.sum(-1, keepdim=True)


def drawn_tree(
    parents: list[int], p: tree_twin.Distribution, q: tree_twin.Distribution, vocab: int, draws: str
) -> tuple[torch.Tensor, TreeOutcome]:
    """Draw and verify the tree of DRAWN seeds with the engine's own numbers; returns tokens and outcome."""
    depth, width = sizes(parents)
    seeds = torch.arange(DRAWN)[:, None]
    texts: list[list[tuple[int, ...]]] = [[()] * DRAWN, *([[]] * len(parents))]
    tokens = torch.zeros(DRAWN, len(parents), dtype=torch.int64)
    valid = torch.zeros(DRAWN, len(parents), dtype=torch.bool)
    for row in range(-1, len(parents)):
        children = [index for index, parent in enumerate(parents) if parent == row]
        if not children:
            continue
        place = len(ancestors(parents)[row]) if row >= 0 else 0
        probs = torch.tensor([q(text) for text in texts[row + 1]], dtype=torch.float32)
        if draws == "top":
            found, possible = draw_top(probs, len(children)), torch.ones(DRAWN, len(children), dtype=torch.bool)
        else:
            siblings = torch.arange(len(children))
            numbers = uniform(seeds, torch.tensor(place), Purpose.DRAFT, siblings)
            found, possible = draw_without_replacement(probs, numbers)
        for sibling, child in enumerate(children):
            tokens[:, child], valid[:, child] = found[:, sibling], possible[:, sibling]
            texts[child + 1] = [
                (*text, token) for text, token in zip(texts[row + 1], found[:, sibling].tolist(), strict=True)
            ]
    target, draft = (
        torch.stack(
            [torch.tensor([m(text) if text is not None else [0.0] * vocab for text in row]) for row in texts], 1
        )
        for m in (p, q)
    )
    places = torch.arange(depth + 1)
    parent_rows = torch.tensor(parents).expand(DRAWN, -1)
    recover = uniform(seeds, places, Purpose.RECOVERY)
    if draws == "top":
        return tokens, accept_tree_certain(target, tokens, parent_rows, recover, depth=depth, width=width)
    accept = uniform(seeds[..., None], places[:depth, None], Purpose.ACCEPT, torch.arange(width))
    return tokens, accept_tree_sampled(
        target, tokens, parent_rows, draft, accept, recover, depth=depth, width=width, valid=valid
    )


def p_value(tokens: torch.Tensor, outcome: TreeOutcome, vocab: int, p: tree_twin.Distribution) -> float:
    """Of the joint law of the first two emitted tokens, over those texts that have two, and of the first token."""
    texts = []
    for row in range(DRAWN):
        accepted = [int(tokens[row, node]) for node in outcome.path[row] if node >= 0]
        texts.append((*accepted, int(outcome.recovery_token[row])))
    first = [sum(text[0] == token for text in texts) for token in range(vocab)]
    values = [chi_square_p(first, [DRAWN * value for value in p(())])]
    # given the first token, having a second one depends on numbers of the first position alone
    for token in range(vocab):
        second = [text[1] for text in texts if text[0] == token and len(text) > 1]
        if len(second) >= 200:
            counts = [second.count(value) for value in range(vocab)]
            values.append(chi_square_p(counts, [len(second) * value for value in p((token,))]))
    return min(1.0, min(values) * len(values))


CASES = list(itertools.product(["without_replacement", "top"], [0.7, 1.0], ["two children", "uneven"]))


@pytest.mark.quick("without_replacement-1.0-uneven", "top-0.7-two children")
@pytest.mark.parametrize(("draws", "temperature", "shape"), CASES)
def test_drawn_text_follows_the_target(draws: str, temperature: float, shape: str) -> None:
    p, q = model(3, 5, temperature), model(103, 5, temperature, zeros=0.3)
    tokens, outcome = drawn_tree(SHAPES[shape], p, q, 5, draws)
    assert p_value(tokens, outcome, 5, p) > ALPHA
    if shape == "uneven":
        assert set(outcome.num_accepted.tolist()) == {0, 1, 2, 3}


@pytest.mark.quick("siblings stay in q")
@pytest.mark.grid(most=2)
@pytest.mark.parametrize("bug", ["siblings stay in q", "p is not updated", "greedy"])
def test_planted_bugs_are_rejected(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "siblings stay in q": ("remove", lambda probs, tokens: probs),
        "p is not updated": ("residual", lambda p, q: p),
        "greedy": ("accepts", lambda p, q, uniforms: p >= q),
    }[bug]
    monkeypatch.setattr(tree_acceptance, *wrong)
    p, q = model(3, 5), model(103, 5)
    tokens, outcome = drawn_tree(SHAPES["three children, then two"], p, q, 5, "without_replacement")
    assert p_value(tokens, outcome, 5, p) < LARGE


def test_drawing_with_replacement_is_rejected() -> None:
    """Planted bug in the draft: siblings drawn independently, verified as if drawn without replacement."""
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.7, 0.2, 0.1])
    seeds = torch.arange(DRAWN)[:, None]
    numbers = uniform(seeds, torch.tensor(0), Purpose.DRAFT, torch.arange(2))
    right, _ = draw_without_replacement(q.expand(DRAWN, -1), numbers)
    wrong = torch.stack([sample(q.expand(DRAWN, -1), numbers[:, i]) for i in range(2)], 1)
    values = []
    for tokens in (right, wrong):
        outcome = accept_tree_sampled(
            p.expand(DRAWN, 3, -1), tokens, torch.full((DRAWN, 2), -1), q.expand(DRAWN, 3, -1),
            uniform(seeds[..., None], torch.zeros(1, 1, dtype=torch.int64), Purpose.ACCEPT, torch.arange(2)),
            uniform(seeds, torch.arange(2), Purpose.RECOVERY), depth=1, width=2,
        )  # fmt: skip
        accepted = tokens.gather(1, outcome.path.clamp(min=0)).squeeze(1)
        emitted = torch.where(outcome.num_accepted > 0, accepted, outcome.recovery_token)
        values.append(chi_square_p(torch.bincount(emitted, minlength=3), DRAWN * p))
    assert values[0] > ALPHA
    assert values[1] < LARGE


def test_certain_guesses_change_nothing_but_the_number_of_rounds() -> None:
    """The text is the one that autoregressive decoding draws with the same numbers."""
    p, q = model(5, 5), model(105, 5)
    tokens, outcome = drawn_tree(SHAPES["uneven"], p, q, 5, "top")
    lengths = set()
    for row in range(300):
        emitted = [
            *(int(tokens[row, node]) for node in outcome.path[row] if node >= 0),
            int(outcome.recovery_token[row]),
        ]
        text: list[int] = []
        for place in range(len(emitted)):
            number = uniform(torch.tensor(row), torch.tensor(place), Purpose.RECOVERY)
            text.append(int(sample(torch.tensor(p(tuple(text))), number)))
        assert emitted == text
        lengths.add(len(emitted))
    assert lengths == {1, 2, 3, 4}


def test_certain_guesses_have_the_law_of_recursive_rejection() -> None:
    """A delta for each sibling: accepted with p(x) / (1 - what earlier siblings took), all of it p(x)."""
    p = model(9, 5)(())
    guesses, left, alive = [3, 1, 4], list(p), 1.0
    for guess in guesses:
        assert alive * left[guess] == pytest.approx(p[guess])
        alive *= 1 - left[guess]
        left = tree_twin.leftover(left, [float(token == guess) for token in range(5)])
    assert [alive * value for value in left] == pytest.approx([0 if i in guesses else p[i] for i in range(5)])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(sorted(SHAPES)))
def test_greedy_walks_down_while_a_child_is_the_targets_choice(seed: int, shape: str) -> None:
    chance = random.Random(seed)
    parents = SHAPES[shape]
    depth, width = sizes(parents)
    batch = 4
    target = [[chance.randrange(3) for _ in range(len(parents) + 1)] for _ in range(batch)]
    tokens = [[chance.randrange(3) for _ in parents] for _ in range(batch)]
    outcome = accept_tree_greedy(
        torch.tensor(target), torch.tensor(tokens), torch.tensor([parents] * batch), depth=depth, width=width
    )
    for row in range(batch):
        node, path = -1, []
        while True:
            wanted = target[row][node + 1]
            found = [i for i, parent in enumerate(parents) if parent == node and tokens[row][i] == wanted]
            if not found:
                break
            node = found[0]
            path.append(node)
        assert outcome.path[row].tolist() == path + [-1] * (depth - len(path))
        assert int(outcome.recovery_token[row]) == target[row][node + 1]


def test_a_greedy_row_among_sampled_ones_follows_the_targets_choice() -> None:
    """Its distributions are ones; its children are the draft's likeliest tokens, whatever q says of them."""
    target = torch.eye(4)[torch.tensor([[2, 1, 3, 0]])]
    draft = torch.eye(4)[torch.tensor([[1, 0, 0, 0]])]
    outcome = accept_tree_sampled(
        target, torch.tensor([[1, 2, 3]]), torch.tensor([[-1, -1, 1]]), draft,
        torch.full((1, 2, 2), 0.9), torch.full((1, 3), 0.9), depth=2, width=2,
    )  # fmt: skip
    assert outcome.path.tolist() == [[1, 2]]
    assert outcome.recovery_token.tolist() == [0]


def test_a_tree_that_is_a_chain_accepts_as_a_chain_does() -> None:
    from ssd_lab.decoding.acceptance import accept_sampled

    generator = torch.Generator().manual_seed(4)
    batch, k, vocab = 200, 4, 7
    target = random_probs(generator, batch, k + 1, vocab, zeros=0.2).float()
    draft = random_probs(generator, batch, k, vocab, zeros=0.2).float()
    seeds, places = torch.arange(batch)[:, None], torch.arange(k + 1)
    tokens = sample(draft, uniform(seeds, places[:k], Purpose.DRAFT))
    accept, recover = uniform(seeds, places[:k], Purpose.ACCEPT), uniform(seeds, places, Purpose.RECOVERY)
    chain = accept_sampled(target, tokens, draft, torch.full((batch,), k), accept, recover)
    parents = torch.arange(-1, k - 1).expand(batch, -1)
    tree = accept_tree_sampled(target, tokens, parents, draft, accept[..., None], recover, depth=k, width=1)
    assert torch.equal(tree.num_accepted, chain.num_accepted)
    assert torch.equal(tree.recovery_token, chain.recovery_token)
    assert set(chain.num_accepted.tolist()) == set(range(k + 1))


@pytest.mark.parametrize("rule", ["greedy", "certain", "sampled", "draws"])
def test_nothing_waits_for_the_device(rule: str) -> None:
    """On tensors without values every step that would read one fails; CUDA graphs could not hold it either."""
    with FakeTensorMode():
        tokens, parents = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6, dtype=torch.int64)
        probs, recover = torch.zeros(2, 7, 11), torch.zeros(2, 4)
        sizes = {"depth": 3, "width": 2}
        if rule == "greedy":
            shape = accept_tree_greedy(tokens.new_zeros(2, 7), tokens, parents, **sizes).path.shape
        elif rule == "certain":
            shape = accept_tree_certain(probs, tokens, parents, recover, **sizes).path.shape
        elif rule == "sampled":
            accept = torch.zeros(2, 3, 2)
            shape = accept_tree_sampled(probs, tokens, parents, probs, accept, recover, **sizes).path.shape
        else:
            shape = draw_without_replacement(probs[:, 0], recover[:, :3])[0].shape
    assert tuple(shape) == (2, 3)


def test_children_are_numbered_in_order_and_unfit_ones_keep_their_place() -> None:
    parents = torch.tensor([[-1, -1, 0, 0, 1], [-1, 0, -1, 1, -1]])
    assert child_table(parents, 2).tolist() == [
        [[0, 1], [2, 3], [4, -1], [-1, -1], [-1, -1], [-1, -1]],
        [[0, 2], [1, -1], [3, -1], [-1, -1], [-1, -1], [-1, -1]],  # the third child of the root is past the width
    ]
    valid = torch.tensor([[True, False, True, True, True], [False, True, True, True, True]])
    assert child_table(parents, 2, valid)[:, 0].tolist() == [[0, -1], [-1, 2]]


def test_drawn_children_are_distinct_possible_and_stop_when_none_is_left() -> None:
    probs = torch.tensor([0.0, 0.6, 0.0, 0.4]).expand(2000, -1)
    numbers = uniform(torch.arange(2000)[:, None], torch.tensor(7), Purpose.DRAFT, torch.arange(3))
    tokens, valid = draw_without_replacement(probs, numbers)
    assert valid.tolist() == [[True, True, False]] * 2000
    assert {tuple(pair) for pair in tokens[:, :2].tolist()} == {(1, 3), (3, 1)}
    assert abs((tokens[:, 0] == 1).float().mean().item() - 0.6) < 0.04


def test_siblings_numbers_are_apart() -> None:
    """Sibling 0 has the number a chain has; no two siblings or positions share one."""
    seed, places = torch.tensor(5), torch.arange(50)[:, None]
    numbers = uniform(seed, places, Purpose.ACCEPT, torch.arange(MAX_SIBLINGS))
    assert torch.equal(numbers[:, 0], uniform(seed, places[:, 0], Purpose.ACCEPT))
    assert len(numbers.unique()) > numbers.numel() - 10  # 23 bits: a few meet by chance
