"""Draft tokens without running the draft: branches that were prepared, and guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.drafting.draft_settings import DraftSettings
from ssd_lab.drafting.drafter import Drafter
from ssd_lab.drafting.quick_guesses import n_gram_guesses, random_guesses
from ssd_lab.drafting.speculation_cache import Entry, SpeculationCache
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.links.messages import Lookup
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.proposal import ForHits, Proposal


@dataclass(frozen=True)
class LookedUp:
    """What rows take that a branch answers; answered `[batch]`, bool, on its way to the host: which are."""

    drafted: Drafted
    answered: HostCopy

    def for_hits(self, *, record: bool) -> ForHits:
        """As a proposal."""
        drafted = self.drafted
        rows, k = drafted.tokens.shape
        proposal = Proposal(
            tokens=drafted.tokens,
            num_drafted=[k] * rows,
            probs=drafted.probs,
            origins=["hit"] * rows,
            cache_hits=[True] * rows,
            token_probs=drafted.token_probs if record else None,
            raw_probs=drafted.raw_probs,
        )
        return ForHits(proposal, self.answered)


class QuickAnswers:
    """Every answer holds what its round needs: in one that samples each row's distribution is spelled out, in a greedy
    one none is. keeps_probs: is the draft's probability of each token kept?
    """

    def __init__(self, plan: DraftSettings, drafter: Drafter, *, keeps_probs: bool) -> None:
        self._plan, self._drafter, self._keeps_probs = plan, drafter, keeps_probs

    def taken(
        self, tree: DraftTree | None, entries: Sequence[Entry], k: int, *, stale: Sequence[bool], sampled: bool
    ) -> Drafted:
        """Prepared branches, those of the tree first. stale: which were prepared for another outcome; these are certain
        guesses, whatever they were drawn from.
        """
        parts = [entry.kept.steps(k) for entry in entries if entry.kept is not None]
        if fresh := [(entry.row, entry.branch) for entry in entries if entry.kept is None]:
            if tree is None:
                raise RuntimeError("the speculation cache has entries and no tree")
            places = sent(fresh, self._drafter.device)
            parts.insert(0, tree.drafted.at(places[:, 0], places[:, 1]))
        parts = [self.with_distribution(part, sampled=sampled) for part in parts]
        drafted = Drafted.concatenated(parts) if len(parts) > 1 else parts[0]  # the target waits for this
        return self._certain(drafted, sent(stale, self._drafter.device)) if any(stale) else drafted

    def looked_up(self, cache: SpeculationCache, lookup: Lookup, k: int, *, stale: bool) -> LookedUp | None:
        """What `taken` gives once the host knows the outcomes, if branches answer all; None if the latest tree is not
        these rows'. stale: do stale branches answer misses?
        """
        found = cache.found(lookup.request_ids, lookup.decided.here(), self._drafter.runner, stale=stale)
        if found is None or cache.tree is None or cache.tree.drafted.tokens.shape[2] != k:
            return None
        rows = len(lookup.request_ids)
        answered = HostCopy(found.answered[:rows])  # first, since the host waits for it
        sampled = not lookup.rows.all_greedy
        every = torch.arange(rows, device=self._drafter.device)
        drafted = self.with_distribution(cache.tree.drafted.at(every, found.branch[:rows]), sampled=sampled)
        if stale:
            drafted = self._certain(drafted, ~found.hit[:rows])
        return LookedUp(drafted, answered)

    def guessed(self, asked: DraftRound, rows: Sequence[int], k: int, *, sampled: bool) -> Drafted:
        """k tokens for each of these rows: what followed its text's end before, where the plan asks for texts, else
        random ones.
        """
        device = self._drafter.device
        if asked.texts is not None:
            guessed = n_gram_guesses([asked.texts[row] for row in rows], k, device=device)
        else:
            lengths = asked.rows.lengths
            guessed = random_guesses(
                [asked.rows.sampling[row][-1] for row in rows],
                [lengths[row] for row in rows],
                k,
                self._drafter.vocab_size,
                num_tokens=self._drafter.num_tokens,
                sampled=sampled,
                device=device,
            )
        if not self._keeps_probs:
            guessed = Drafted(guessed.tokens, guessed.probs, None)
        return self.with_distribution(guessed, sampled=sampled)

    def with_distribution(self, drafted: Drafted, *, sampled: bool) -> Drafted:
        """For a round that samples, or for a greedy one: a tree may have been grown for another batch."""
        if not sampled:
            return Drafted(drafted.tokens, None, drafted.token_probs)
        probs = self._ones_on(drafted.tokens) if drafted.probs is None else drafted.probs
        raw_probs = drafted.raw_probs
        if raw_probs is None and self._plan.details and self._plan.saguaro_c != 1.0:
            raw_probs = probs  # nothing was modified
        return Drafted(drafted.tokens, probs, drafted.token_probs, raw_probs)

    def _certain(self, drafted: Drafted, rows: torch.Tensor) -> Drafted:
        """The same, with the tokens of some `rows` `[batch]` as certain guesses."""
        probs, raw_probs = (
            None if given is None else torch.where(rows[:, None, None], self._ones_on(drafted.tokens), given)
            for given in (drafted.probs, drafted.raw_probs)
        )
        token_probs = drafted.token_probs
        if token_probs is not None:
            token_probs = torch.where(rows[:, None], 1.0, token_probs)
        return Drafted(drafted.tokens, probs, token_probs, raw_probs)

    def _ones_on(self, tokens: torch.Tensor) -> torch.Tensor:
        """Certain guesses as distributions `[..., vocab]`."""
        zeros = torch.zeros(*tokens.shape, self._drafter.vocab_size, device=tokens.device)
        return zeros.scatter_(-1, tokens.unsqueeze(-1), 1.0)
