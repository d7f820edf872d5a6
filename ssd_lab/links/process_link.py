"""A draft worker in a child process: its own interpreter, so neither side waits for the other's Python."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ssd_lab import errors
from ssd_lab.errors import DraftLateError, DraftWorkerError, SsdLabError
from ssd_lab.links.channel import Channel
from ssd_lab.links.child_process import CHILDREN, Starter
from ssd_lab.links.draft_process import FAILED
from ssd_lab.links.link import CLOSED, NumberedLink
from ssd_lab.links.round_memory import RoundMemory
from ssd_lab.links.worker import WorkerSource
from ssd_lab.rounds.proposal import Proposal

LAST_WORDS_S = 1.0  # for reading why a child ended, after its end was noticed


class ProcessLink(NumberedLink):
    """The worker runs in a child process, which ends when its end of the connection closes, also if this one dies.

    A round's two messages travel through memory that both share, all else over the connection; a round that is asked
    while another is unanswered does too. start_timeout_s: for its start, and for the child to take in any later
    message. waits: until the child has started; else `has_started` must be asked before the link is used. starter: of
    the child; on another host, what is written to the memory there and here travels over the connection.
    """

    def __init__(
        self, setup: WorkerSource, *, start_timeout_s: float, waits: bool = True, starter: Starter = CHILDREN
    ) -> None:
        super().__init__()
        self._start_timeout_s = start_timeout_s
        self._memory: RoundMemory | None = None
        with ExitStack() as undone:
            if setup.slots is not None and starter.shares_memory:
                self._memory = RoundMemory.shared(setup.slots)
                undone.callback(self._memory.close)
            shared = [] if self._memory is None else self._memory.theirs
            try:
                self._child = starter.start(threads=setup.threads, shared=shared)
            except OSError as error:
                raise DraftWorkerError(f"the draft process cannot be started: {error}") from error
            undone.pop_all()
        self._channel = Channel(self._child.connection, send_timeout_s=start_timeout_s)
        try:
            if setup.slots is not None and not starter.shares_memory:
                self._memory = RoundMemory.mirrored(setup.slots, self._channel)
            if self._memory is not None:
                self._memory.was_handed_over()
            self._sent_s = time.perf_counter()
            self._send(setup)
            if waits:
                self.has_started(start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def starting_s(self) -> float | None:
        """For how long it has been starting; None once it has started."""
        return time.perf_counter() - self._sent_s if self._answered < 0 else None

    def has_started(self, timeout_s: float = 0.0) -> bool:
        """Wait for the child to start. Raises DraftWorkerError if it cannot, or if the time is up."""
        if self._answered < 0:
            self._receive(self._number, timeout_s)
            self._child.started()
        return True

    def close(self) -> None:
        """Close the connection, at which the child ends; kill it if it does not within 5 s."""
        self._closed = True
        with ExitStack() as closing:
            if self._memory is not None:
                closing.callback(self._memory.close)
            if self.is_forked:  # the child is the other process's, and so is the connection
                self._channel.abandon()
                return
            closing.callback(self._child.end)
            if self._memory is not None:
                self._memory.cancel()
            self._channel.close()

    def _put(self, number: int, message: Any) -> None:
        try:
            if self._memory is not None and self._memory.is_free(self._answered):
                self._channel.flush()  # what Ctrl-C cut short comes before it
                if self._memory.ask(number, message, self._channel.num_put):
                    return
            self._channel.send((number, message))
        except TimeoutError:
            raise DraftWorkerError(
                f"the draft process took in no message for {self._start_timeout_s:g} s: it is busy or stuck"
            ) from None
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _take(self, timeout_s: float) -> tuple[int, Any]:
        try:
            if self._memory is not None and self._memory.wait(max(0, self._answered), self._channel, timeout_s):
                return self._from_memory(self._memory, timeout_s)
            number, reply = self._channel.receive(timeout_s)
        except TimeoutError:
            raise DraftLateError(f"the draft process did not answer within {timeout_s:g} s") from None
        except (EOFError, OSError, ValueError) as error:  # ValueError: closed by another thread meanwhile
            if self._closed:
                raise DraftWorkerError(CLOSED) from error
            raise self._lost() from error
        if number == FAILED:
            raise _failed(*reply) from _cause(*reply)
        return number, reply

    def _from_memory(self, memory: RoundMemory, timeout_s: float) -> tuple[int, Proposal]:
        """The answer that stands there, with what follows over the connection."""
        number, beside = memory.answered, None
        if memory.slots.has_beside:
            own, beside = self._channel.receive(timeout_s)
            if own == FAILED:
                raise _failed(*beside) from _cause(*beside)
            if own != number:  # what followed this answer was read and left, and nobody waits for it any more
                return own, beside
            self.traffic.beside += 1
        proposal, spans = memory.speculation(beside, self._child.clock_offset_s)
        shifted = [_shifted(span, self._child.clock_offset_s) for span in proposal.activities]
        return number, replace(proposal, activities=[*shifted, *spans])

    def _lost(self) -> DraftWorkerError:
        """The connection ended. Raises what the child said before, if that was not read yet."""
        try:
            while True:
                number, reply = self._channel.receive(LAST_WORDS_S)
                if number == FAILED:
                    raise _failed(*reply) from _cause(*reply)
        except (EOFError, OSError):
            return DraftWorkerError(f"the draft process is gone ({self._child.how_it_ended()})")


def _shifted(span: Any, offset_s: float) -> Any:
    if offset_s == 0.0:
        return span
    return replace(span, start_s=span.start_s + offset_s, end_s=span.end_s + offset_s)


def _failed(name: str, text: str, traceback: str) -> DraftWorkerError:
    return DraftWorkerError(f"the draft process failed: {name}: {text}")


def _cause(name: str, text: str, traceback: str) -> Exception:
    """The error as it was in the child, if it is one of ours; its traceback is a note."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, SsdLabError):
        error: Exception = kind(text)
    else:
        error = RuntimeError(f"{name}: {text}")
    error.add_note(f"in the draft process:\n{traceback}")
    return error
