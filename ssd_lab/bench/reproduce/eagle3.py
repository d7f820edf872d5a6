"""The bundled EAGLE3 head beside the bundled draft: tokens per round at the same k."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_lab.bench.reproduce.recording import CHAIN_K, DATASETS, Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.common.statistics import Estimate, bootstrap_ratio
from ssd_lab.display.tables import Table
from ssd_lab.trace import Trace

KEY = "eagle3"
LEAST = 3.2
WHO = {"eagle3": "EAGLE3 head", "sync_chain": "draft model"}


def section(recordings: Recordings) -> PaperSection:
    """Greedy rounds of both on the same prompts, in all and by set."""
    if not recordings.bundled:
        return PaperSection(
            KEY, "EAGLE3 head and draft model", _PAPER, "Only for the bundled target, whose head is known."
        )
    found = {}
    for name in WHO:
        trace = recordings.chain(name)
        groups = {"all": [request.request_id for request in trace.requests]}
        groups |= {dataset: recordings.requests_of(trace, dataset) for dataset in DATASETS}
        found[name] = {group: _tokens(trace, ids) for group, ids in groups.items()}
    head, draft = found["eagle3"]["all"], found["sync_chain"]["all"]
    return PaperSection(
        key=KEY,
        title="EAGLE3 head and draft model",
        paper=_PAPER,
        ours=f"Tokens per round (accepted plus one) of synchronous chains, k = {CHAIN_K}, T = 0, over rounds of "
        f"{CHAIN_K} draft tokens that no end of a text cut short; 95 % interval of a bootstrap over requests. Neither "
        "was trained on these prompts.",
        tables=(
            Table(
                ("", *next(iter(found.values()))),
                tuple((who, *map(_shown, found[name].values())) for name, who in WHO.items()),
            ),
        ),
        claims=(
            Claim(
                f"the head gives at least {LEAST} tokens a round", None if head is None else head.mean >= LEAST,
                _shown(head),
            ),
            Claim(
                "the head gives more tokens a round than the draft model",
                None if head is None or draft is None else head.mean > draft.mean,
                f"{_shown(head)} and {_shown(draft)}: the draft is a model of its own of three layers, distilled on "
                "the target's distribution; the head has one",
            ),
        ),
        numbers={
            name: {group: None if own is None else own.as_dict() for group, own in groups.items()}
            for name, groups in found.items()
        },
    )  # fmt: skip


_PAPER = (
    "Saguaro's tables use EAGLE3 heads for some targets and give no tokens per round of them beside a draft model's."
)


def _tokens(trace: Trace, ids: Sequence[int]) -> Estimate | None:
    """Of these requests."""
    tokens, rounds = dict.fromkeys(ids, 0), dict.fromkeys(ids, 0)
    for own in (s for one in trace.rounds for s in one.sequences if s.request_id in tokens):
        if len(own.draft_tokens) == CHAIN_K and own.num_emitted == own.num_accepted + 1:
            tokens[own.request_id] += own.num_emitted
            rounds[own.request_id] += 1
    return bootstrap_ratio(list(tokens.values()), list(rounds.values()))


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    interval = "" if estimate.low is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.mean:.2f}{interval}"
