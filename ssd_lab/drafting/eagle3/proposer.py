"""A proposer whose draft tokens come from an EAGLE3 head: it carries the target's features to the head's worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ssd_lab.common.device_guard import current
from ssd_lab.drafting.composition import no_draft, propose_some, replace_rows
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.eagle3.drafter import EagleDrafter
from ssd_lab.drafting.eagle3.messages import EaglePrefill, EagleRound
from ssd_lab.drafting.resources import Resources
from ssd_lab.drafting.tree_worker import TreePlan
from ssd_lab.drafting.worker_proposer import WorkerProposer
from ssd_lab.drafting.worker_setup import WorkerMemory
from ssd_lab.errors import ConfigError
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import Link
from ssd_lab.links.opening import LinkKind, open_link
from ssd_lab.links.worker import Worker
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.proposal import ForHits, Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import PrefillChunk, Sequence

_PENDING = "features that the head has not met"


@dataclass(frozen=True)
class PendingFeatures:
    """The last `count` committed tokens but one have features in `features[row, :count]` that the head has not met."""

    features: DeviceTensor
    row: int
    count: int

    @property
    def own(self) -> torch.Tensor:
        """`[count, feature_size]`."""
        return self.features.tensor[self.row, : self.count]


class EagleProposer(WorkerProposer):
    """Keeps what the target said of each sequence until its next round, and sends it along.

    The features after a round's last committed token and along what was accepted (k + 1 places at most) reach the head
    with the next round: by then it is known which token follows the last. A sequence of one token has no feature yet
    and gets no draft.
    """

    def __init__(
        self,
        link: Link,
        feature_layers: tuple[int, ...],
        k: int,
        *,
        timeout_s: float,
        sends_texts: bool = False,
        prepares: bool = False,
        preparations: Preparations | None = None,
    ) -> None:
        super().__init__(
            link, timeout_s=timeout_s, sends_texts=sends_texts, prepares=prepares, preparations=preparations
        )
        self.feature_layers = feature_layers
        self._k = k
        self._kept: tuple[torch.Tensor, DeviceTensor] | None = None  # what `observe` will be given, and a copy of it

    def prefill(self, chunks: list[PrefillChunk], features: list[torch.Tensor] | None = None) -> None:
        """The head reads the same part of the prompt, each feature beside the token that follows it."""
        if features is None:
            raise ConfigError(
                "an EAGLE3 head needs the target's features of the prompt, and whatever runs it here gives none: "
                "run the strategy by itself"
            )
        new = [PendingFeatures(DeviceTensor.of(own[None]), 0, len(own)) for own in features]
        lengths = [chunk.stop + 1 for chunk in chunks]
        self._read_by_head([chunk.sequence for chunk in chunks], new, lengths)

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens whose place in the head's cache is settled: features of the last round are met with the next one."""
        return max(0, len(sequence.token_ids) - (sequence.last_accepted or 0) - 2)

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """One message each way for the sequences that have features."""
        able = [row for row, sequence in enumerate(sequences) if _PENDING in sequence.memory]
        if len(able) == len(sequences):
            return self.finish(self._begin(sequences, self._eagle_message(sequences, rows)))
        if not able:
            return no_draft(len(sequences))
        some = propose_some(self, able, sequences, rows)
        return replace_rows(no_draft(len(sequences), some.tokens.device), able, some)

    def for_hits(
        self, sequences: list[Sequence], rows: RowBatch, decided: torch.Tensor, features: torch.Tensor | None
    ) -> ForHits | None:
        """Also copy the features before the next verification overwrites them, so that the head waits for no more."""
        found = super().for_hits(sequences, rows, decided, features)
        if found is not None and features is not None:
            self._kept = (features, DeviceTensor.of(features[: len(sequences)].clone()))
        return found

    def suspend(self, sequence: Sequence) -> None:
        """Its features come again with its text."""
        super().suspend(sequence)
        sequence.memory.pop(_PENDING, None)

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """Keep the features of the tokens that were committed; the next verification overwrites where they lie.

        After a round that somebody else drafted the head meets at once what is new, and what it had not met before:
        there may be more of it than a round of its own sends along.
        """
        super().observe(sequences, features)
        kept, self._kept = self._kept, None
        if features is None:
            return
        if kept is not None and kept[0] is features:
            own = kept[1]
        else:
            own = DeviceTensor.of(features[: len(sequences)].clone())
        for row, sequence in enumerate(sequences):
            if sequence.last_accepted is None:
                continue
            new, length = PendingFeatures(own, row, sequence.last_accepted + 1), len(sequence.token_ids)
            if sequence.is_complete or self._drafted_last_round(sequence):
                sequence.memory[_PENDING] = new
                continue
            if (before := sequence.memory.get(_PENDING)) is not None:
                self._read_by_head([sequence], [before], [length - new.count])
            self._read_by_head([sequence], [new], [length])

    def _read_by_head(self, sequences: list[Sequence], news: list[PendingFeatures], lengths: list[int]) -> None:
        """Let the head read features that texts of so many tokens end in; the last one of each is left to be met again,
        since drafting begins with it.
        """
        features = [new.own for new in news]
        parts = [
            PromptPart(sequence.token_ids[length - new.count : length], length - 1 - new.count, list(sequence.blocks))
            for sequence, new, length in zip(sequences, news, lengths, strict=True)
        ]
        self.link.post(EaglePrefill(parts, [DeviceTensor.of(own) for own in features]))
        for sequence, own in zip(sequences, features, strict=True):
            sequence.memory[_PENDING] = PendingFeatures(DeviceTensor.of(own[None, -1:].clone()), 0, 1)

    def _eagle_message(self, sequences: list[Sequence], rows: RowBatch) -> EagleRound:
        known: list[PendingFeatures] = [sequence.memory[_PENDING] for sequence in sequences]
        counts = [new.count for new in known]
        following = [s.token_ids[len(s.token_ids) - count :] for s, count in zip(sequences, counts, strict=True)]
        return EagleRound(
            **vars(self._message(sequences, rows)),
            features=self._joined(known),
            token_ids=torch.tensor([[*tokens, *[0] * (self._k + 1 - len(tokens))] for tokens in following]),
            counts=torch.tensor(counts),
        )

    def _joined(self, known: list[PendingFeatures]) -> DeviceTensor:
        """Features of every row `[batch, k + 1, feature_size]`; those of one round mostly lie side by side already.

        What lies behind a row's own is cut off where a round held more than this draft's k.
        """
        first, places = known[0].features, self._k + 1
        if all(new.features is first and new.row == row for row, new in enumerate(known)):
            joined = first.tensor[: len(known)]
            if joined.shape[1] == places:  # made a while ago: whoever reads it waits for nothing that came later
                return replace(first, tensor=joined)
            return DeviceTensor.of(F.pad(joined, (0, 0, 0, places - joined.shape[1])))
        each = [new.features.tensor[new.row] for new in known]
        return DeviceTensor.of(torch.stack([F.pad(own, (0, 0, 0, places - own.shape[0])) for own in each]))


@dataclass(frozen=True)
class HeadSetup:
    """A head's worker, beside the target whose features it reads."""

    head: Eagle3Head
    plan: DraftPlan | TreePlan
    resources: Resources

    @property
    def threads(self) -> int | None:
        """What the draft has."""
        return self.resources.draft_threads

    @property
    def slots(self) -> None:
        """A head's rounds carry features, which stay in this process."""
        return None

    def make_worker(self) -> Worker:
        """Allocate its cache and build it."""
        head, resources, config = self.head, self.resources, self.resources.config
        with current(resources.device):
            memory = WorkerMemory.allocate(
                head.config.layers,
                head.dtype,
                resources.device,
                num_blocks=resources.num_blocks,
                block_size=config.block_size,
                max_batch=config.max_batch,
                longest_table=resources.longest_table,
                scratch_positions=self.plan.scratch_positions,
                eager=config.eager or not head.kernels.captures,
                observer=resources.observer,
                debug_memory=config.debug_memory,
            )
            runner = HeadRunner(head, memory.cache, resources.device, memory.executor)
            return self.plan.make_worker(EagleDrafter(runner, memory.placement))


def open_head(
    resources: Resources, head: Eagle3Head, plan: DraftPlan | TreePlan, link: LinkKind, *, sends_texts: bool = False
) -> EagleProposer:
    """Start a worker for this head and plan, and return the proposer that talks to it.

    `auto` takes a stream of its own on a GPU and works in the engine's own thread on a CPU. Raises ConfigError for a
    link over which features would have to travel.
    """
    if resources.places.draft_is_elsewhere:
        raise ConfigError(
            f"placement {str(resources.places.asked)!r} puts the draft elsewhere, and this is an EAGLE3 head: it reads "
            "the target's features and weights where the target has them. Leave draft out of the placement"
        )
    opened = open_link(
        link,
        HeadSetup(head, plan, resources),
        resources.device,
        allowed=("stream", "inline") if resources.device.type == "cuda" else ("inline", "thread"),
        draft="an EAGLE3 head, which reads the target's features where the target leaves them",
        start_timeout_s=resources.config.timeout_s,
    )
    return EagleProposer(
        opened,
        head.config.feature_layers,
        plan.k,
        timeout_s=resources.config.timeout_s,
        sends_texts=sends_texts,
        prepares=plan.prepares,
        preparations=resources.preparations,
    )
