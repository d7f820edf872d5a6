"""What a strategy is given to build its proposer from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from ssd_lab.config import EngineConfig
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.worker_setup import WorkerPlan, WorkerSetup
from ssd_lab.errors import ConfigError, DraftWorkerError, SsdLabError
from ssd_lab.execution.observing import NOBODY, ExecutorObserver
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import InlineLink, Link, ThreadLink
from ssd_lab.links.stream_link import StreamLink
from ssd_lab.models.loader import LoadedModel

LinkKind = Literal["auto", "inline", "thread", "process", "stream"]


def takes_a_process(link: LinkKind, device: torch.device) -> bool:
    """Does a draft that can be loaded by name get a process of its own?"""
    return device.type == "cpu" and os.name == "posix" and link in ("auto", "process")


@dataclass(frozen=True)
class Resources:
    """The engine as a strategy sees it: its settings, sizes, the draft model, if one was given, and the target, for
    drafts that share something with it. observer: of what executes the draft's phases. preparations: of target
    and draft.
    """

    config: EngineConfig
    device: torch.device
    vocab_size: int
    num_blocks: int
    draft: LoadedModel | str | None
    draft_threads: int | None
    longest_table: int
    target: LoadedModel
    observer: ExecutorObserver = NOBODY
    preparations: Preparations | None = None

    def open_worker(
        self, plan: WorkerPlan, link: LinkKind, *, sends_texts: bool = False, needs_outcomes: bool = True
    ) -> LinkProposer:
        """Start a draft worker with this plan and return the proposer that talks to it.

        `auto` takes a stream of its own on a GPU; on a CPU a child process where the platform allows it and the draft
        can be loaded there, else a thread. sends_texts: the worker looks at the texts themselves. needs_outcomes: it
        goes by what became of its last draft; without, and inline, it may draft before the host knows that.
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
            device=str(self.device),
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
        with own_errors(), ExitStack() as unfinished:
            opened = self._open(setup, link)
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

    def _open(self, setup: WorkerSetup, link: LinkKind) -> Link:
        if link == "inline":
            return InlineLink(setup.make_worker())
        if self.device.type == "cuda":
            if link not in ("auto", "stream"):
                raise ConfigError(
                    f"draft_link={link!r} was given for a draft on a GPU: take 'stream' (or 'auto'), which runs it "
                    "beside the target, or 'inline', which runs them in turn"
                )
            return StreamLink(setup.make_worker, self.device)
        source = setup.model if isinstance(setup.model, str) else setup.model.source
        can_leave = source is not None and takes_a_process(link, self.device)
        if link == "stream" or (link == "process" and not can_leave):
            raise ConfigError(
                f"draft_link={link!r} was given: 'stream' needs a CUDA device, and 'process' a POSIX system and a "
                "draft that can be loaded by name; take 'thread' or 'auto'"
            )
        if not can_leave:
            return ThreadLink(setup.make_worker, threads=setup.threads, start_timeout_s=self.config.timeout_s)
        from ssd_lab.links.process_link import ProcessLink

        # the draft as it was loaded here: `dtype` of the config may say auto where the caller chose
        dtype = setup.dtype if isinstance(setup.model, str) else str(setup.model.dtype).removeprefix("torch.")
        in_child = WorkerSetup(**{**vars(setup), "model": str(source), "dtype": dtype, "observer": NOBODY})
        return ProcessLink(in_child, start_timeout_s=self.config.timeout_s)


@contextmanager
def own_errors() -> Iterator[None]:
    """A draft that cannot be started for a reason of ours, such as a damaged file, is an error of that kind."""
    try:
        yield
    except DraftWorkerError as error:
        if isinstance(error.__cause__, SsdLabError):
            raise error.__cause__ from None
        raise
