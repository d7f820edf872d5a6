"""What a strategy is given to build its proposer from."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import BaseModel

from ssd_lab.config import EngineConfig
from ssd_lab.drafting.draft_seat import DraftSeat
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.several_drafts import SeveralDrafts
from ssd_lab.drafting.worker_setup import WorkerPlan, WorkerSetup
from ssd_lab.errors import ConfigError
from ssd_lab.execution.observing import NOBODY, ExecutorObserver
from ssd_lab.execution.preparations import Preparations
from ssd_lab.hosts.places import Places
from ssd_lab.links.link import InlineLink, Link
from ssd_lab.links.opening import LinkKind, open_link, worker_errors
from ssd_lab.models.families import FAMILIES
from ssd_lab.models.loader import LoadedModel


def takes_a_process(link: LinkKind, device: torch.device, *, apart: bool = False) -> bool:
    """Does a draft that can be loaded by name get a process of its own? apart: one of several, or one that may be
    started again, also on a GPU.
    """
    return (device.type == "cpu" or apart) and os.name == "posix" and link in ("auto", "process")


@dataclass(frozen=True)
class Resources:
    """The engine as a strategy sees it: its settings, sizes, the draft model, if one was given, and the target, for
    drafts that share something with it. device: the target's first. places: of all devices. observer: of what executes
    the draft's phases. preparations: of target and draft.
    """

    config: EngineConfig
    device: torch.device
    places: Places
    vocab_size: int
    num_blocks: int
    draft: LoadedModel | str | None
    draft_threads: int | None
    longest_table: int
    target: LoadedModel
    observer: ExecutorObserver = NOBODY
    preparations: Preparations | None = None

    @property
    def draft_device(self) -> torch.device:
        """Where the draft works, or the first of several."""
        return torch.device(self.places.first_draft.device)

    def open_worker(
        self, plan: WorkerPlan, link: LinkKind, *, sends_texts: bool = False, needs_outcomes: bool = True
    ) -> LinkProposer | SeveralDrafts:
        """Start a draft worker with this plan, or one on each device that is named for drafting, and return the
        proposer that talks to them.

        `auto` takes a stream of its own on a GPU; on a CPU a child process where the platform allows it and the draft
        can be loaded there (it has a name, and its family was not registered by this program), else a thread.
        sends_texts: the worker looks at the texts themselves. needs_outcomes: it goes by what became of its last draft;
        without, and inline, it may draft before the host knows that.
        """
        if self.draft is None:
            raise ConfigError(
                "this strategy drafts with a model, and none was given: pass draft=<folder, .gguf file or hub id>"
            )
        setup = WorkerSetup(
            model=self.draft,
            target=self.target.config,
            num_tokens=self.target.decoder.num_tokens,
            dtype=self.config.dtype,
            device=str(self.draft_device),
            num_blocks=self.num_blocks,
            block_size=self.config.block_size,
            max_batch=self.config.max_batch,
            threads=self.draft_threads,
            plan=plan,
            longest_table=self.longest_table,
            eager=self.config.eager,
            observer=self.observer,
            debug_memory=self.config.debug_memory,
        )
        link, allowed = self._wanted(link, setup), self._links(setup)
        if self._may_be_several and (link, allowed[0])[link == "auto"] == "process":
            return self._several(setup, sends_texts=sends_texts)
        if len(self.places.draft) > 1 or self.places.draft_is_elsewhere:
            raise ConfigError(
                f"placement {str(self.places.asked)!r} names {len(self.places.draft)} drafts, each a process of its "
                f"own, and draft_link={link!r} was given, or the draft cannot be loaded in one (it can where it has a "
                "name and a built-in family): leave draft_link out, or name one device of this process"
            )
        opened = open_link(
            link,
            setup,
            self.draft_device,
            allowed=allowed,
            draft=f"a draft on {'a GPU' if self.draft_device.type == 'cuda' else 'a CPU'}",
            start_timeout_s=self.config.timeout_s,
        )
        with ExitStack() as unfinished:
            unfinished.callback(opened.close)
            needs_outcomes = needs_outcomes or not isinstance(opened, InlineLink)
            proposer = self._proposer_over(
                opened, sends_texts=sends_texts, prepares=plan.prepares, needs_outcomes=needs_outcomes
            )
            unfinished.pop_all()
        return proposer

    @property
    def _may_be_several(self) -> bool:
        return len(self.places.draft) > 1 or self.config.restart_draft > 0 or self.places.draft_is_elsewhere

    def _wanted(self, link: LinkKind, setup: WorkerSetup) -> LinkKind:
        """A device that a placement names for drafting on a CPU is a process of its own, also for a strategy that would
        draft in this thread.
        """
        chosen = self.config.draft_link
        return chosen if self.places.draft and "process" in self._links(setup) else link

    def _proposer_over(
        self, link: Link, *, sends_texts: bool, prepares: bool = False, needs_outcomes: bool = True
    ) -> LinkProposer:
        return LinkProposer(
            link,
            timeout_s=self.config.timeout_s,
            wait_s=self.config.draft_wait_s,
            sends_texts=sends_texts,
            prepares=prepares,
            preparations=self.preparations,
            needs_outcomes=needs_outcomes,
        )

    def _several(self, setup: WorkerSetup, *, sends_texts: bool) -> SeveralDrafts:
        """A process on each device that is named for drafting, all started at once."""
        from ssd_lab.links.process_link import ProcessLink  # needs a POSIX system

        limit_s, places = self.config.timeout_s, self.places.draft or (self.places.first_draft,)
        threads = setup.threads
        if len(places) > 1 and not self.places.draft_is_elsewhere:
            threads = (threads or torch.get_num_threads()) // len(places) or 1
        if self.places.asked.draft_parallel == "tensor":  # one draft, whose process starts the others
            setup, places = replace(setup, ranks=places, limit_s=limit_s), places[:1]
        with ExitStack() as unfinished:
            seats: list[DraftSeat] = []
            for number, place in enumerate(places):
                own = replace(setup, device=place.device, threads=threads)
                seat = DraftSeat(
                    number,
                    partial(ProcessLink, own, start_timeout_s=limit_s, waits=False, starter=place.starter),
                    partial(self._proposer_over, sends_texts=sends_texts),
                    restarts=self.config.restart_draft,
                    start_timeout_s=limit_s,
                )
                unfinished.callback(seat.close)
                seats.append(seat)
            several = SeveralDrafts(seats)
            with worker_errors():
                several.wait_for_start()
            unfinished.pop_all()
        return several

    def _links(self, setup: WorkerSetup) -> tuple[LinkKind, ...]:
        """How a draft model may be reached, the best first."""
        if self.draft_device.type == "cuda" and not self._may_be_several:
            return ("stream", "inline")
        known_elsewhere = isinstance(self.draft, LoadedModel) and self.draft.config.model_type in FAMILIES.built_in
        # a component that was defined in a notebook or a script is known to this process alone
        parts = [type(part) for part in vars(setup.plan).values() if isinstance(part, BaseModel)]
        can_leave = (
            setup.source is not None
            and (known_elsewhere or isinstance(self.draft, str))
            and all(part.__module__.startswith("ssd_lab.") for part in parts)
        )
        if self.draft_device.type == "cuda":
            apart = can_leave and takes_a_process("auto", self.draft_device, apart=True)
            return ("process", "stream", "inline") if apart else ("stream", "inline")
        if can_leave and takes_a_process("auto", self.draft_device):
            return ("process", "thread", "inline")
        return ("thread", "inline")
