"""Hit or miss: the lookup of tensors finds what a walk through the branches finds."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from replay_graphs import ReplayBackend

from ssd_lab.decoding.branches import branch_layout, outcome_keys
from ssd_lab.drafting.draft_settings import DraftSettings
from ssd_lab.drafting.quick_answers import QuickAnswers
from ssd_lab.drafting.speculation_cache import SpeculationCache
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.graphs import GraphExecutor
from ssd_lab.links.messages import Lookup
from ssd_lab.phases.draft_tree import LookupInputs, LookupPhase
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.rows import RowBatch, StateOnDevice


def walked(counts: list[int], recovery_tokens: list[int], accepted: int, token: int) -> int | None:
    """The branch that assumes this outcome: one by one."""
    branch = 0
    for length, count in enumerate(counts):
        for _ in range(count):
            if (length, recovery_tokens[branch]) == (accepted, token):
                return branch
            branch += 1
    return None


def random_tree(draw: random.Random, k: int, budget: int) -> tuple[list[int], list[int]]:
    """A schedule of this budget, and other recovery tokens at each accepted length."""
    counts = [0] * (k + 1)
    for _ in range(budget):
        counts[draw.randrange(k + 1)] += 1
    return counts, [token for count in counts for token in draw.sample(range(12), count)]


@pytest.mark.parametrize(("k", "budget"), [(1, 1), (1, 5), (3, 7), (6, 10)])
def test_the_lookup_finds_what_a_walk_finds(k: int, budget: int) -> None:
    draw = random.Random(k)
    seen = set()
    for batch in (1, 2, 5) * 20:
        trees = [random_tree(draw, k, budget) for _ in range(batch)]
        outcomes = [(draw.randrange(k + 1), draw.randrange(12)) for _ in range(batch)]
        found = LookupPhase().run(None, inputs_of(trees, outcomes))
        expected = [walked(*tree, *outcome) for tree, outcome in zip(trees, outcomes, strict=True)]
        got = zip(found.hit.tolist(), found.branch.tolist(), strict=True)
        assert [branch if hit else None for hit, branch in got] == expected
        seen |= {branch is None for branch in expected}
    assert seen == {True, False}


def inputs_of(trees: list[tuple[list[int], list[int]]], outcomes: list[tuple[int, int]]) -> LookupInputs:
    counts, recovery = (torch.tensor([tree[part] for tree in trees]) for part in (0, 1))
    return LookupInputs(branch_keys(counts, recovery), torch.tensor(outcomes))


def branch_keys(counts: torch.Tensor, recovery: torch.Tensor) -> torch.Tensor:
    return outcome_keys(branch_layout(counts, recovery.shape[1])[0], recovery)


def tree_of(counts: list[list[int]], recovery: list[list[int]]) -> DraftTree:
    """Branches of one token, which says where it is: 100 times the row and the branch."""
    rows, branches = len(recovery), len(recovery[0])
    tokens = 100 * torch.arange(rows)[:, None] + torch.arange(branches)
    candidates = torch.zeros(rows, len(counts[0]), 2, dtype=torch.int64)
    drafted = Drafted(tokens.unsqueeze(-1), None, None)
    keys = branch_keys(torch.tensor(counts), torch.tensor(recovery))
    return DraftTree(torch.tensor(counts), torch.tensor(recovery), keys, candidates, drafted, None, None)


def test_rows_are_looked_up_by_request_and_what_is_kept_outlives_the_tree() -> None:
    """Requests 7 and 9 are in the tree, 9 goes away and comes back when the next tree is there."""
    cache = SpeculationCache()
    assert cache.look_up([7], [0], [5])[0].exact is None
    cache.store([7, 9], tree_of([[2, 1], [1, 2]], [[5, 6, 5], [5, 6, 7]]))
    one, two, other = cache.look_up([9, 7, 8], [1, 0, 0], [7, 6, 5])
    assert (one.exact.row, one.exact.branch) == (1, 2) and (two.exact.row, two.exact.branch) == (0, 1)
    assert one.stale is None and two.stale is None and (other.exact, other.stale) == (None, None)
    missed, also = cache.look_up([9, 7], [1, 0], [8, 7])
    assert (missed.exact, also.exact) == (None, None) and missed.stale.branch == 1 and also.stale.branch == 0
    assert cache.look_up([7, 9], [None, 1], [6, 8]) == [type(one)(), missed]
    cache.keep(9, 1, 7, 0.5)
    cache.store([7], tree_of([[2, 1]], [[1, 2, 3]]))
    back, gone = cache.look_up([9, 7], [1, 1], [7, 5])
    assert back.exact.kept.tokens.tolist() == [[102]] and back.stale is None and cache.kept(9).predicted == 0.5
    assert gone.exact is None and gone.stale.branch == 2
    cache.keep_only([])
    assert cache.look_up([9], [1], [7])[0].exact is None


def test_a_miss_that_is_kept_answers_with_a_stale_branch_only() -> None:
    cache = SpeculationCache()
    cache.store([3], tree_of([[1, 1]], [[5, 6]]))
    cache.keep(3, 1, 9, None)
    (kept,) = cache.look_up([3], [1], [9])
    assert kept.exact is None and kept.stale.kept.tokens.tolist() == [[1]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_device_that_looks_up_finds_what_the_host_finds(temperature: float) -> None:
    """Batches of 1 to 16, rows of padding behind them, and what a hit takes of the tree."""
    draw, sampled, k, budget = random.Random(1), temperature > 0, 3, 7
    torch.manual_seed(0)
    runner = SimpleNamespace(run=lambda phase, inputs: GraphExecutor(ReplayBackend()).call(phase, None, inputs))
    drafter = SimpleNamespace(device=torch.device("cpu"), runner=runner, vocab_size=12)
    quick = QuickAnswers(DraftSettings(k), drafter, keeps_probs=True)
    seen = set()
    for batch in range(1, 17):
        cache, rows = SpeculationCache(), batch + draw.randrange(3)
        trees = [random_tree(draw, k, budget) for _ in range(rows)]
        outcomes = [(draw.randrange(k + 1), draw.randrange(12)) for _ in range(batch)]
        counts, recovery = (torch.tensor([tree[part] for tree in trees]) for part in (0, 1))
        places = (rows, budget, k)
        probs = torch.rand(*places, 12) if sampled else None
        drafted = Drafted(torch.randint(12, places), probs, torch.rand(places))
        sampling = [(temperature, 0, 1.0, 0.0, 0)] * batch
        behind = RowBatch(StateOnDevice(torch.zeros(3, batch), 0), [[]] * batch, sampling)
        keys, candidates = branch_keys(counts, recovery), torch.zeros(rows, k + 1, 2)
        cache.store(range(batch), DraftTree(counts, recovery, keys, candidates, drafted, None, None))
        decided = torch.tensor([[*outcome, 1, 1] for outcome in outcomes] + [[0, 0, 1, 1]] * draw.randrange(3))
        got = quick.looked_up(cache, Lookup(list(range(batch)), DeviceTensor.of(decided), behind), k, stale=False)
        each = [found.exact for found in cache.look_up(range(batch), *zip(*outcomes, strict=True))]
        assert got is not None and got.answered.arrays()[0].tolist() == [entry is not None for entry in each]
        hits = [row for row, entry in enumerate(each) if entry is not None]
        seen |= {entry is not None for entry in each}
        if hits:
            taken = quick.taken(cache.tree, [each[row] for row in hits], k, stale=[False] * len(hits), sampled=sampled)
            assert torch.equal(got.drafted.tokens[hits], taken.tokens)
            assert torch.equal(got.drafted.token_probs[hits], taken.token_probs)
            assert taken.probs is None if not sampled else torch.equal(got.drafted.probs[hits], taken.probs)
        assert got.drafted.tokens.shape == (batch, k) and (got.drafted.probs is None) == (not sampled)
        others = Lookup([*range(1, batch), 0, 99], DeviceTensor.of(decided), behind)
        assert all(quick.looked_up(cache, others, least, stale=False) is None for least in (k, k + 1))
    assert seen == {True, False}
