"""What a strategy is given to build its proposer from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from ssd_lab.config import EngineConfig
from ssd_lab.engine.draft_worker import DraftPlan
from ssd_lab.engine.link import InlineLink, Link, ThreadLink
from ssd_lab.engine.link_proposer import LinkProposer
from ssd_lab.engine.worker_setup import WorkerSetup
from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import LoadedModel

LinkKind = Literal["auto", "inline", "thread", "process"]


@dataclass(frozen=True)
class Resources:
    """The engine as a strategy sees it: its settings, sizes, and the draft model, if one was given."""

    config: EngineConfig
    device: torch.device
    vocab_size: int
    num_blocks: int
    draft: LoadedModel | str | None
    draft_threads: int | None

    def open_worker(self, plan: DraftPlan, link: LinkKind) -> LinkProposer:
        """Start a draft worker with this plan and return the proposer that talks to it.

        `auto` takes a child process where the platform allows it and the draft can be loaded there, else a thread.
        """
        if self.draft is None:
            raise ConfigError(
                "this strategy drafts with a model, and none was given: pass draft=<folder, .gguf file or hub id>"
            )
        setup = WorkerSetup(
            model=self.draft,
            dtype=self.config.dtype,
            device=str(self.device),
            num_blocks=self.num_blocks,
            block_size=self.config.block_size,
            max_batch=self.config.max_batch,
            threads=self.draft_threads,
            plan=plan,
        )
        return LinkProposer(self._open(setup, link), timeout_s=self.config.timeout_s)

    def _open(self, setup: WorkerSetup, link: LinkKind) -> Link:
        if link == "inline":
            return InlineLink(setup.make_worker())
        source = setup.model if isinstance(setup.model, str) else setup.model.source
        can_fork_off = os.name == "posix" and source is not None and self.device.type == "cpu"
        if link == "thread" or (link == "auto" and not can_fork_off):
            return ThreadLink(setup.make_worker, threads=setup.threads, start_timeout_s=self.config.timeout_s)
        if not can_fork_off:
            raise ConfigError(
                "draft_link='process' needs a POSIX system, the CPU, and a draft that can be loaded by name; "
                "take 'thread' or 'auto'"
            )
        from ssd_lab.engine.process_link import ProcessLink

        # the draft as it was loaded here: `dtype` of the config may say auto where the caller chose
        dtype = setup.dtype if isinstance(setup.model, str) else str(setup.model.dtype).removeprefix("torch.")
        in_child = WorkerSetup(**{**vars(setup), "model": str(source), "dtype": dtype})
        return ProcessLink(in_child, start_timeout_s=self.config.timeout_s)
