"""Speed beside transformers: the same weights, dtype, prompts and lengths, in one run, taking turns."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssd_lab.assembly.build import resolve_device
from ssd_lab.bench.contenders import Contender, TransformersPair, ours, speedup, take_turns
from ssd_lab.config import SamplingParams
from ssd_lab.llm import LLM
from ssd_lab.models.loader import load_model, resolve_dtype


@dataclass(frozen=True)
class PeerReport:
    """Tokens per second of each contender; ratios are medians of the ratios within a repeat."""

    contenders: list[Contender]
    settings: dict[str, Any]

    def named(self, name: str) -> Contender:
        """The contender of that name."""
        return next(contender for contender in self.contenders if contender.name == name)

    def ratio(self, name: str, over: str) -> float:
        """How many times as fast `name` is as `over`: the median over the repeats, each timed back to back."""
        return speedup(self.named(name), self.named(over))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a contender."""
        first = self.contenders[0]
        own = self.named("autoregressive").token_ids
        return [
            {
                "name": contender.name,
                "tokens_per_second": contender.tokens_per_second,
                "over_transformers": self.ratio(contender.name, first.name),
                "over_autoregressive": self.ratio(contender.name, "autoregressive"),
                "same_text": sum(a == b for a, b in zip(contender.token_ids, own, strict=True)),
                "prompts": len(own),
            }
            for contender in self.contenders
        ]


def compare_with_transformers(
    target: str,
    draft: str,
    prompts: list[str],
    *,
    k: int = 6,
    f: int = 3,
    max_tokens: int = 64,
    repeats: int = 5,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> PeerReport:
    """Batch 1, temperature 0, every request `max_tokens` long. Contenders take turns, so that drift hits all alike.

    target, draft: as transformers loads them too; each program loads them once.
    threads: CPU threads of each; None gives ours what its engine chose, and the others all.
    """
    place = str(resolve_device(device))
    resolved = resolve_dtype(dtype, place)
    name = str(resolved).removeprefix("torch.")
    own: dict[str, Any] = {"dtype": name, "max_batch": 1, "progress": False, "record": False, "threads": threads}
    own["prefix_reuse"] = False  # the others compute a prompt each time that they are given it
    own["device"] = place
    own_target, own_draft = (
        load_model(source, dtype=name, device=place, progress=progress) for source in (target, draft)
    )
    tokenizer = own_target.tokenizer
    if tokenizer is not None:  # no longer than needed: a full-size model's own context would take all memory
        longest = max(len(tokenizer.encode(prompt)) for prompt in prompts)
        own["max_model_len"] = min(own_target.config.max_positions, longest + max_tokens + 64)
    knobs: dict[str, dict[str, Any]] = {"autoregressive": {}, "sync_chain": {"k": k}, "async_tree": {"k": k, "f": f}}
    with ExitStack() as stack:
        llms = {
            strategy: stack.enter_context(LLM(own_target, own_draft, strategy, **fields, **own))
            for strategy, fields in knobs.items()
        }
        encoded = [llms["autoregressive"].encode(prompt) for prompt in prompts]
        most_threads = max(llm.threads for llm in llms.values())
        peer = TransformersPair(target, draft, dtype=resolved, device=place, threads=threads or most_threads)
        contenders = [
            peer.generate("transformers generate"),
            peer.assisted("transformers assisted (its defaults)"),
            peer.assisted(f"transformers assisted (k = {k})", k),
            *(ours(label, llm, SamplingParams(ignore_eos=True)) for label, llm in llms.items()),
        ]
        take_turns(contenders, encoded, max_tokens, repeats=repeats, warmup=1, progress=progress)
    settings = {"k": k, "f": f, "max_tokens": max_tokens, "repeats": repeats, "dtype": name, "prompts": len(prompts)}
    return PeerReport(contenders, settings)
