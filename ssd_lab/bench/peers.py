"""Other programs beside a benchmark run: the same weights, dtype, prompts and lengths, taking turns with ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.assembly.build import resolve_device, share_threads
from ssd_lab.bench.config import BUNDLED, BenchConfig
from ssd_lab.bench.contenders import (
    ASSISTED,
    LOOKUP,
    PLAIN,
    Contender,
    Ids,
    TransformersPair,
    ours,
    peer_names,
    speedup,
    take_turns,
)
from ssd_lab.bench.session import Session
from ssd_lab.bench.support import find_checkpoint
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.models.loader import load_model
from ssd_lab.results import Output

DEFAULT_K = 6  # draft tokens a round of a peer, where our strategy has none


@dataclass(frozen=True)
class Difference:
    """Where a peer's text leaves ours. position: the first token that differs, counted from the end of the prompt.

    logit_gap: our target's logit of our token less that of theirs, at that place (float32); near 0 the two programs
    rounded differently, far from it one of them is wrong. None: one text ends there.
    """

    prompt: int
    position: int
    own_token: int | None
    peer_token: int | None
    logit_gap: float | None


@dataclass(frozen=True)
class PeerResult:
    """One peer beside ours. Speeds in tokens per second, prefill included; both were timed in the same turns.

    seconds, own_seconds: one entry a turn, all prompts. batch: sequences that the peer decodes together (assisted and
    prompt-lookup generation take one). differences: None where texts are sampled and so need not be equal.
    """

    name: str
    tokens_per_second: float
    own_tokens_per_second: float
    own_speedup: float
    seconds: tuple[float, ...]
    own_seconds: tuple[float, ...]
    num_tokens: int
    num_prompts: int
    batch: int
    version: str
    differences: tuple[Difference, ...] | None = None

    @property
    def num_same(self) -> int | None:
        """Prompts whose text is ours, token by token."""
        return None if self.differences is None else self.num_prompts - len(self.differences)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; num_same for readers."""
        return {**dataclasses.asdict(self), "num_same": self.num_same}


def run_peers(
    config: BenchConfig, prompts: Sequence[Any], own_outputs: Sequence[Output], *, progress: bool = False
) -> dict[str, PeerResult]:
    """Run the config's peers on the very ids that gave `own_outputs`, in turns with a fresh engine of ours.

    Each turn is all prompts once; there are `config.repeats` after one that warms up.

    Raises ConfigError for an unknown peer, or one that needs a draft model that was not given.
    """
    if len(prompts) != len(own_outputs):
        raise ConfigError(f"{len(own_outputs)} outputs were given for {len(prompts)} prompts: give one for each")
    has_draft = config.draft is not None or config.target == BUNDLED
    names = peer_names(config.peers, has_draft=has_draft)
    asked = [output.prompt_ids for output in own_outputs]
    with Session(config, load_model) as session:
        own = ours("own", session.llm, SamplingParams(temperature=config.temperature, ignore_eos=config.ignore_eos))
        pair = _pair(config, session.llm, with_draft=any("assisted" in name for name in names))
        peers = [_contender(name, pair, config, session.llm) for name in names]
        torch.manual_seed(config.seed)  # transformers samples from torch's generator
        warmup = min(config.warmup, 1)
        take_turns([*peers, own], asked, config.output_len, repeats=config.repeats, warmup=warmup, progress=progress)
        own_texts = [output.token_ids for output in own_outputs]
        return {peer.name: _result(peer, own, asked, own_texts, config, session.llm) for peer in peers}


def _pair(config: BenchConfig, llm: LLM, *, with_draft: bool) -> TransformersPair:
    from ssd_lab import demo

    draft = None
    if with_draft:
        name = config.draft or BUNDLED
        draft = str(demo.DRAFT) if name == BUNDLED else find_checkpoint(name)
    assert llm.target.source is not None  # it was loaded from somewhere
    ends = () if config.ignore_eos else (llm.target.tokenizer or llm.target.config).eos_token_ids
    return TransformersPair(
        llm.target.source,
        draft,
        dtype=llm.target.dtype,
        device=str(resolve_device(llm.config.device)),
        threads=all_threads(llm),
        temperature=config.temperature,
        eos_token_ids=ends,
    )


def all_threads(llm: LLM) -> int:
    """CPU threads that one of our engines uses for target and draft together: a peer, which does one thing at a time,
    may use as many for each."""
    target, draft = share_threads(llm.config, llm.strategy, resolve_device(llm.config.device))
    return (target or torch.get_num_threads()) + (draft or 0)


def _contender(name: str, pair: TransformersPair, config: BenchConfig, llm: LLM) -> Contender:
    k = llm.strategy.lookahead or DEFAULT_K
    if name == PLAIN:
        return pair.generate(name, config.batch)
    if name == LOOKUP:
        return pair.prompt_lookup(name, k)
    return pair.assisted(name, k if name == ASSISTED else None)


def _result(
    peer: Contender, own: Contender, asked: list[Ids], own_texts: list[Ids], config: BenchConfig, llm: LLM
) -> PeerResult:
    import transformers

    found = None
    if config.temperature == 0:
        each = enumerate(zip(asked, own_texts, peer.token_ids, strict=True))
        found = tuple(
            difference
            for index, (prompt, ours_, theirs) in each
            if (difference := first_difference(index, prompt, ours_, theirs, llm)) is not None
        )
    return PeerResult(
        name=peer.name,
        tokens_per_second=peer.tokens_per_second,
        own_tokens_per_second=own.tokens_per_second,
        own_speedup=speedup(own, peer),
        seconds=tuple(peer.seconds),
        own_seconds=tuple(own.seconds),
        num_tokens=peer.num_tokens,
        num_prompts=len(asked),
        batch=peer.batch,
        version=f"transformers {transformers.__version__}",
        differences=found,
    )


def first_difference(index: int, prompt: Ids, own: Ids, theirs: Ids, llm: LLM) -> Difference | None:
    """Where two texts part, and how close a call it was for our target; None if they are equal."""
    if own == theirs:
        return None
    shorter = min(len(own), len(theirs))
    place = next((at for at in range(shorter) if own[at] != theirs[at]), shorter)
    if place == shorter:
        own_token = own[place] if place < len(own) else None
        peer_token = theirs[place] if place < len(theirs) else None
        return Difference(index, place, own_token, peer_token, None)
    logits = llm.score([*prompt, *own[:place]])[-1]
    gap = float(logits[own[place]] - logits[theirs[place]])
    return Difference(index, place, own[place], theirs[place], gap)
