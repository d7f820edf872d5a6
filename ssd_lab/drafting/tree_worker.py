"""A draft that answers each round with a tree."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.common.device_guard import door
from ssd_lab.decoding.topology import Topology
from ssd_lab.drafting.batch_control import ControlReader, DraftRound
from ssd_lab.drafting.drafter import Drafter
from ssd_lab.errors import NonFiniteLogitsError
from ssd_lab.execution.stopwatch import MOST_SPANS, CudaStopwatch, Span, Stopwatch
from ssd_lab.execution.structure import each_tensor
from ssd_lab.links.messages import (
    ControlMessage,
    KeptMessage,
    Lookup,
    Message,
    PrefillMessage,
    RestoreMessage,
    RoundMessage,
)
from ssd_lab.phases.grow_dynamic_tree import DynamicShape, grow_dynamic_tree
from ssd_lab.phases.grow_tree import grow_tree
from ssd_lab.phases.reading import Reading
from ssd_lab.rounds.drafted import GrownTree
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import Bounds


@dataclass(frozen=True)
class TreePlan:
    """What the worker does each round.

    shape: a settled topology, or what shapes a dynamic tree. drawn: children are drawn without replacement at
    temperature > 0 (never those of a dynamic tree), else the likeliest tokens. record: keep probabilities and times.
    """

    shape: Topology | DynamicShape
    drawn: bool
    record: bool = True

    @property
    def k(self) -> int:
        """The most draft tokens that a round may keep."""
        return self.shape.depth

    @property
    def most_tokens(self) -> int:
        """Nodes of a tree."""
        return self.shape.num_nodes

    @property
    def scratch_positions(self) -> int:
        """None: nodes are written behind the committed tokens, in the sequence's own blocks."""
        return 0

    @property
    def reserved_positions(self) -> int:
        """Places behind the committed tokens that a round writes, in the target's cache or in the draft's."""
        fed = self.shape.num_fed if isinstance(self.shape, DynamicShape) else len(set(self.shape.parents) - {-1})
        return max(self.shape.num_nodes, self.shape.depth + fed)

    @property
    def prepares(self) -> bool:
        """A tree is grown when the round before is over."""
        return False

    def make_worker(self, drafter: Drafter) -> TreeWorker:
        """A worker with this plan."""
        return TreeWorker(drafter, self)


_ON_ITS_DEVICE = door(lambda worker: worker._drafter.device)


class TreeWorker:
    """Grows a tree for each round, and moves the K/V of the path that was kept."""

    def __init__(self, drafter: Drafter, plan: TreePlan) -> None:
        self._drafter, self._plan = drafter, plan
        self._grown: tuple[Reading, GrownTree] | None = None
        self._batch = ControlReader()
        self._activities: list[Span] = []
        self._watch = CudaStopwatch(drafter.device) if drafter.device.type == "cuda" else Stopwatch()

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def handle(self, message: Message) -> Proposal | None:
        """Do what the message asks; a round is answered with a tree for every row."""
        start = self._watch.start()
        if isinstance(message, RoundMessage):
            proposal = self._answer(self._batch.round(message))
            self._note("draft", start)
            proposal.activities.extend(self._activities)
            self._activities = []
            return proposal
        if isinstance(message, ControlMessage):
            self._batch.read(message)
        elif isinstance(message, PrefillMessage):
            self._drafter.prefill(message)
            self._note("prefill", start)
        elif isinstance(message, KeptMessage):
            self._keep(message)
            self._note("keep", start)
        elif isinstance(message, RestoreMessage):  # nothing else is learned
            self._activities.clear()
        return None

    def background(self) -> None:
        """Nothing can be drafted before the outcome is known."""

    def look_up(self, lookup: Lookup) -> None:
        """Nothing is prepared."""

    def get_ready(self) -> None:
        """Nothing was looked up."""

    def start_ahead(self) -> None:
        """Nor ready."""

    def _answer(self, asked: DraftRound) -> Proposal:
        reading, bounds = self._drafter.reading(asked, range(len(asked.rows)))
        grown = self._grow(reading, bounds)
        self._grown = (reading, grown)
        count = len(asked.rows)
        token_probs = None if grown.token_probs is None else grown.token_probs[:count]
        if token_probs is not None and token_probs.device.type == "cpu" and not bool(torch.isfinite(token_probs).all()):
            raise NonFiniteLogitsError("the draft's logits hold NaN or infinity: check its weights and dtype")
        return Proposal(
            tokens=grown.tokens[:count],
            num_drafted=[grown.tokens.shape[1]] * count,
            probs=None if grown.probs is None else grown.probs[:count],
            origins=["tree"] * count,
            cache_hits=[None] * count,
            token_probs=token_probs,
            tree=each_tensor(lambda tensor: tensor[:count], grown.tree),
        )

    def _grow(self, reading: Reading, bounds: Bounds) -> GrownTree:
        runner, plan = self._drafter.runner, self._plan
        if isinstance(plan.shape, DynamicShape):
            return grow_dynamic_tree(runner, reading, bounds, plan.shape, record=plan.record)
        return grow_tree(runner, reading, bounds, plan.shape, drawn=plan.drawn, record=plan.record)

    def _keep(self, message: KeptMessage) -> None:
        """By the rows as they were placed for the tree: whoever made their lengths may have gone on since."""
        if self._grown is not None:
            reading, grown = self._grown
            self._drafter.keep(reading, message.paths.here(self._drafter.device), grown.written)

    def _note(self, name: str, start: float | torch.Event) -> None:
        if self._plan.record:
            self._activities.append(self._watch.span("draft", name, start))  # type: ignore[arg-type]
            del self._activities[:-MOST_SPANS]
