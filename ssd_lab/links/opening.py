"""The one place where a link is chosen and opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from ssd_lab.errors import ConfigError, DraftWorkerError, SsdLabError
from ssd_lab.links.link import InlineLink, Link
from ssd_lab.links.stream_link import StreamLink
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.links.worker import WorkerSource

LinkKind = Literal["auto", "inline", "thread", "process", "stream"]


def open_link(
    kind: LinkKind,
    source: WorkerSource,
    device: torch.device,
    *,
    allowed: Sequence[LinkKind],
    draft: str,
    start_timeout_s: float,
) -> Link:
    """Start a worker and return the link to it. allowed: the kinds that fit, the best first, which `auto` takes. draft:
    whose link it is, for the error.

    Raises ConfigError for another kind, and the worker's own error where it cannot be started for a reason of ours,
    such as a damaged file.
    """
    chosen = allowed[0] if kind == "auto" else kind
    if chosen not in allowed:
        raise ConfigError(f"draft_link={kind!r} was given for {draft}: take {' or '.join(allowed)} (or auto)")
    with worker_errors():
        return _open(chosen, source, device, start_timeout_s)


@contextmanager
def worker_errors() -> Iterator[None]:
    """While a worker starts: what is wrong there for a reason of ours is the caller's own error."""
    try:
        yield
    except DraftWorkerError as error:
        if isinstance(error.__cause__, SsdLabError):
            raise error.__cause__ from None
        raise


def _open(kind: LinkKind, source: WorkerSource, device: torch.device, start_timeout_s: float) -> Link:
    if kind == "inline":
        return InlineLink(source.make_worker())
    if kind == "stream":
        return StreamLink(source.make_worker, device)
    if kind == "thread":
        return ThreadLink(source.make_worker, threads=source.threads, start_timeout_s=start_timeout_s)
    from ssd_lab.links.process_link import ProcessLink  # needs a POSIX system

    return ProcessLink(source, start_timeout_s=start_timeout_s)
