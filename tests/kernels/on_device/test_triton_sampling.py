"""Picking, drawing and accepting tokens: against the plain versions, at ties, edges and with numbers that are none."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import INTERPRETED, random, same_bits

from ssd_lab.decoding.acceptance import accept_greedy, accept_sampled
from ssd_lab.kernels.interface import Kernels

VOCABS = [3, 1000, 4096, 9001]
ROWS = 16 if INTERPRETED else 64  # the interpreter computes one after the other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", VOCABS)
def test_greedy_pick(triton_kernels: Kernels, device: torch.device, dtype: torch.dtype, vocab: int) -> None:
    logits = random((6, vocab), vocab, dtype)
    logits[3, [vocab // 2, vocab - 1]] = 9.0  # a tie: the first one counts
    logits[4] = 1.0
    logits[5] = -torch.inf
    logits[5, vocab - 1] = -3e4
    tokens, probs = triton_kernels.greedy_pick(logits.to(device), want_probs=True)
    assert probs is not None
    assert tokens.dtype == torch.int64 and probs.dtype == torch.float32
    first = [int((row == row.max()).nonzero()[0]) for row in logits.float()]
    assert tokens.tolist() == first
    expected = torch.softmax(logits.double(), -1).amax(-1)
    torch.testing.assert_close(probs.double().cpu(), expected, rtol=1e-5, atol=0)
    again, none = triton_kernels.greedy_pick(logits.to(device), want_probs=False)
    assert none is None and torch.equal(again, tokens)
    for row in range(6):
        token, prob = triton_kernels.greedy_pick(logits[row : row + 1].to(device), want_probs=True)
        assert torch.equal(token, tokens[row : row + 1])
        assert prob is not None and same_bits(prob, probs[row : row + 1])


def test_greedy_pick_reads_rows_that_lie_apart(triton_kernels: Kernels, device: torch.device) -> None:
    logits = random((4, 3, 500), 0).to(device)
    assert torch.equal(triton_kernels.greedy_pick(logits[:, -1], want_probs=False)[0], logits[:, -1].argmax(-1))


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value")
def test_what_is_no_number_gives_a_token_of_the_vocabulary(kernels: Kernels, device: torch.device) -> None:
    bad = torch.stack([torch.full((5000,), torch.nan), torch.full((5000,), -torch.inf), random((5000,), 0)])
    bad[2, 17] = torch.nan
    uniforms = torch.tensor([0.1, 0.5, 1 - 2.0**-24], device=device)
    bad_and_infinite = torch.cat([bad, bad[2:].nan_to_num(torch.inf)]).to(device)
    picked, probs = kernels.greedy_pick(bad_and_infinite, want_probs=True)
    assert probs is not None and probs.isnan().all()
    for tokens in (picked, kernels.sample(bad.to(device), uniforms)):
        assert ((tokens >= 0) & (tokens < 5000)).all()


@pytest.mark.parametrize("vocab", VOCABS)
def test_a_draw_inverts_the_cumulative_sum(kernels: Kernels, device: torch.device, vocab: int) -> None:
    """Checked in float64: the number drawn with lies where the token's probability lies, up to rounding."""
    probs = torch.softmax(2 * random((ROWS, vocab), vocab), -1)
    probs[::2, : vocab // 2] = 0.0
    uniforms = torch.rand(ROWS, generator=torch.Generator().manual_seed(vocab))
    tokens = kernels.sample(probs.to(device), uniforms.to(device)).cpu()
    cumulative = probs.double().cumsum(-1)
    above = cumulative.gather(1, tokens[:, None])[:, 0] / cumulative[:, -1]
    chance = probs.double().gather(1, tokens[:, None])[:, 0] / cumulative[:, -1]
    assert (chance > 0).all()
    assert (uniforms.double() <= above + 1e-6).all() and (uniforms.double() >= above - chance - 1e-6).all()


def test_draws_at_the_edges_have_a_positive_probability(kernels: Kernels, device: torch.device) -> None:
    """The numbers nearest 0 and 1, with zeros at both ends and whole pieces of zeros."""
    probs = torch.zeros(4, 7000)
    probs[0, 3500], probs[1, [2000, 2001]], probs[2, 6999], probs[3] = 1.0, 0.5, 1e-30, 0.1
    for uniform in (2.0**-24, 0.5, 1 - 2.0**-24):
        tokens = kernels.sample(probs.to(device), torch.full((4,), uniform, device=device)).cpu()
        assert (probs.gather(1, tokens[:, None]) > 0).all()
        assert tokens[0] == 3500 and tokens[2] == 6999


def test_a_number_at_the_end_of_a_share_belongs_to_the_next_token(kernels: Kernels, device: torch.device) -> None:
    """Shares whose sums float32 holds exactly."""
    probs = torch.tensor([[0.0, 0.25, 0.25, 0.0, 0.5]] * 4, device=device)
    tokens = kernels.sample(probs, torch.tensor([0.125, 0.25, 0.4375, 0.5], device=device))
    assert tokens.tolist() == [1, 2, 2, 4]


def test_a_draft_token_is_rejected_at_exactly_its_chance(kernels: Kernels, device: torch.device) -> None:
    """p / q = 1/2: kept below, rejected from 1/2 on."""
    target = torch.tensor([[[0.25, 0.75], [1.0, 0.0]]] * 2, device=device)
    token, one = torch.zeros(2, 1, dtype=torch.int64, device=device), torch.ones(2, dtype=torch.int64, device=device)
    accept, recovery = torch.tensor([[0.4375], [0.5]], device=device), torch.full((2, 2), 0.5, device=device)
    draft = torch.tensor([[[0.5, 0.5]]] * 2, device=device)
    outcome = kernels.accept_sampled(target, token, draft, one, accept, recovery)
    assert outcome.num_accepted.tolist() == [1, 0] and outcome.recovery_token.tolist() == [0, 1]


def test_a_certain_guess_stays_if_the_target_draws_it(kernels: Kernels, device: torch.device) -> None:
    """By the number of its place; the coin is not looked at. Beside it a guess that was drawn."""
    target = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]] * 3, device=device)
    token, one = torch.zeros(3, 1, dtype=torch.int64, device=device), torch.ones(3, dtype=torch.int64, device=device)
    accept = torch.tensor([[0.9375], [0.0625], [0.9375]], device=device)
    recovery = torch.tensor([[0.4375, 0.5], [0.5, 0.5], [0.4375, 0.5]], device=device)
    spelled_out = torch.tensor([[[1.0, 0.0]]] * 2 + [[[0.75, 0.25]]], device=device)
    outcome = kernels.accept_sampled(target, token, spelled_out, one, accept, recovery)
    assert outcome.num_accepted.tolist() == [1, 0, 0] and outcome.recovery_token.tolist() == [0, 1, 1]
    outcome = kernels.accept_sampled(target, token, None, one, accept, recovery)
    assert outcome.num_accepted.tolist() == [1, 0, 1] and outcome.recovery_token.tolist() == [0, 1, 0]


def test_draws_of_a_row_do_not_depend_on_the_rows_beside_it(triton_kernels: Kernels, device: torch.device) -> None:
    probs = torch.softmax(random((ROWS, 3000), 1), -1).to(device)
    uniforms = torch.rand(ROWS, generator=torch.Generator().manual_seed(0)).to(device)
    together = triton_kernels.sample(probs, uniforms)
    alone = [triton_kernels.sample(probs[i : i + 1], uniforms[i : i + 1]) for i in range(ROWS)]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("k", [1, 4, 7])
def test_accept_greedy(triton_kernels: Kernels, device: torch.device, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    target = torch.randint(0, 2, (50, k + 1), generator=generator)
    draft = torch.randint(0, 2, (50, k), generator=generator)
    draft[:5] = target[:5, :k]
    drafted = torch.randint(0, k + 1, (50,), generator=generator)
    drafted[:5] = k
    expected = accept_greedy(target, draft, drafted)
    outcome = triton_kernels.accept_greedy(target.to(device), draft.to(device), drafted.to(device))
    assert torch.equal(outcome.num_accepted.cpu(), expected.num_accepted)
    assert torch.equal(outcome.recovery_token.cpu(), expected.recovery_token)
    assert len(set(outcome.num_accepted.tolist())) > 1  # both short and long runs were seen


@pytest.mark.parametrize("is_certain", [False, True])
@pytest.mark.parametrize(("k", "vocab"), [(1, 40), (4, 3000), (3, 1024)])
def test_accept_sampled(kernels: Kernels, device: torch.device, k: int, vocab: int, is_certain: bool) -> None:
    """The plain version decides the same; where it draws another token, the two share an edge in float64."""
    batch, generator = ROWS, torch.Generator().manual_seed(k)
    target = torch.softmax(2 * random((batch, k + 1, vocab), 1), -1)
    draft = torch.softmax(2 * random((batch, k, vocab), 1)[:, :, :] + random((batch, k, vocab), 2), -1)
    tokens = torch.multinomial(draft.flatten(0, 1), 1, generator=generator).view(batch, k)
    if is_certain:
        tokens = target[:, :k].argmax(-1)
        draft = torch.zeros_like(draft).scatter_(-1, tokens.unsqueeze(-1), 1.0)
    drafted = torch.randint(0, k + 1, (batch,), generator=generator)
    drafted[: batch // 2] = k
    target[0, :k], drafted[0] = draft[0], k  # p = q: nothing is rejected
    target[1, 0] = torch.nn.functional.one_hot(torch.tensor(vocab - 1), vocab).float()
    accept, recovery = torch.rand(batch, k, generator=generator), torch.rand(batch, k + 1, generator=generator)
    accept[:6] *= 0.1
    expected = accept_sampled(target, tokens, draft, drafted, accept, recovery)
    moved = [x.to(device) for x in (target, tokens, draft, drafted, accept, recovery)]
    if is_certain:
        moved[2] = None
    outcome = kernels.accept_sampled(*moved)
    assert torch.equal(outcome.num_accepted.cpu(), expected.num_accepted)
    assert 0 in outcome.num_accepted and outcome.num_accepted.max() == k
    for row in range(batch):
        place, token = int(expected.num_accepted[row]), int(outcome.recovery_token[row])
        weights = target[row, place].double()
        if place < drafted[row] and not is_certain:
            weights = (weights - draft[row, place].double()).clamp(min=0)
        high = weights.cumsum(0)[token] / weights.sum()
        chance, uniform = weights[token] / weights.sum(), float(recovery[row, place])
        assert chance > 0
        assert high - chance - 1e-5 <= uniform <= high + 1e-5


def test_a_rejection_with_nothing_left_draws_from_the_target(kernels: Kernels, device: torch.device) -> None:
    """p = q but for rounding, and a token that was rejected all the same."""
    probs = torch.softmax(random((1, 1, 50), 0), -1)
    target = torch.cat([probs * (1 - 1e-7), probs], 1).to(device)
    token = torch.tensor([[int(probs.argmax())]], device=device)
    one = torch.tensor([1], device=device)
    uniforms = torch.tensor([[1.0]], device=device), torch.tensor([[0.5, 0.5]], device=device)
    outcome = kernels.accept_sampled(target, token, torch.maximum(probs.to(device), target[:, :1]), one, *uniforms)
    assert outcome.num_accepted.tolist() == [0]
    assert probs[0, 0, int(outcome.recovery_token[0])] > 0
