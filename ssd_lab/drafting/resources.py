"""What a strategy is given to build its proposer from."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from ssd_lab.config import EngineConfig
from ssd_lab.devices import DevicePlacement
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.worker_setup import WorkerPlan, WorkerSetup
from ssd_lab.errors import ConfigError
from ssd_lab.execution.observing import NOBODY, ExecutorObserver
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import InlineLink
from ssd_lab.links.opening import LinkKind, open_link
from ssd_lab.models.families import FAMILIES
from ssd_lab.models.loader import LoadedModel


def takes_a_process(link: LinkKind, device: torch.device) -> bool:
    """Does a draft that can be loaded by name get a process of its own?"""
    return device.type == "cpu" and os.name == "posix" and link in ("auto", "process")


@dataclass(frozen=True)
class Resources:
    """The engine as a strategy sees it: its settings, sizes, the draft model, if one was given, and the target, for
    drafts that share something with it. device: the target's first. placement: all devices. observer: of what executes
    the draft's phases. preparations: of target and draft.
    """

    config: EngineConfig
    device: torch.device
    placement: DevicePlacement
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
        return torch.device(self.placement.first_draft)

    def open_worker(
        self, plan: WorkerPlan, link: LinkKind, *, sends_texts: bool = False, needs_outcomes: bool = True
    ) -> LinkProposer:
        """Start a draft worker with this plan and return the proposer that talks to it.

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
        opened = open_link(
            link,
            setup,
            self.draft_device,
            allowed=self._links(setup),
            draft=f"a draft on {'a GPU' if self.draft_device.type == 'cuda' else 'a CPU'}",
            start_timeout_s=self.config.timeout_s,
        )
        with ExitStack() as unfinished:
            unfinished.callback(opened.close)
            proposer = LinkProposer(
                opened,
                timeout_s=self.config.timeout_s,
                sends_texts=sends_texts,
                preparations=self.preparations,
                needs_outcomes=needs_outcomes or not isinstance(opened, InlineLink),
            )
            unfinished.pop_all()
        return proposer

    def _links(self, setup: WorkerSetup) -> tuple[LinkKind, ...]:
        """How a draft model may be reached, the best first."""
        if self.draft_device.type == "cuda":
            return ("stream", "inline")
        known_elsewhere = isinstance(self.draft, LoadedModel) and self.draft.config.model_type in FAMILIES.built_in
        can_leave = setup.source is not None and (known_elsewhere or isinstance(self.draft, str))
        if can_leave and takes_a_process("auto", self.draft_device):
            return ("process", "thread", "inline")
        return ("thread", "inline")
