"""A draft worker in a child process: its own interpreter, so neither side waits for the other's Python."""

from __future__ import annotations

from typing import Any

from ssd_lab import errors
from ssd_lab.errors import DraftWorkerError, SsdLabError
from ssd_lab.links.channel import Channel
from ssd_lab.links.child_process import ChildProcess
from ssd_lab.links.draft_process import FAILED
from ssd_lab.links.link import NumberedLink
from ssd_lab.links.worker import WorkerSource

LAST_WORDS_S = 1.0  # for reading why a child ended, after its end was noticed


class ProcessLink(NumberedLink):
    """The worker runs in a child process, which ends when its end of the connection closes, also if this one dies.

    start_timeout_s: for its start, and for the child to take in any later message.
    """

    def __init__(self, setup: WorkerSource, *, start_timeout_s: float) -> None:
        super().__init__()
        self._send_timeout_s = start_timeout_s
        self._child = ChildProcess(threads=setup.threads)
        self._channel = Channel(self._child.connection, send_timeout_s=start_timeout_s)
        try:
            self._send(setup)
            self._receive(self._number, start_timeout_s)
            self._child.started()
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._child.pid

    def close(self) -> None:
        """Close the connection, at which the child ends; kill it if it does not within 5 s."""
        self._closed = True
        if self.is_forked:  # the child is the other process's, and so is the connection
            self._channel.abandon()
            return
        try:
            self._channel.close()
        finally:
            self._child.end()

    def _put(self, number: int, message: Any) -> None:
        try:
            self._channel.send((number, message))
        except TimeoutError:
            raise DraftWorkerError(
                f"the draft process took in no message for {self._send_timeout_s:g} s: it is busy or stuck"
            ) from None
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _take(self, timeout_s: float) -> tuple[int, Any]:
        try:
            number, reply = self._channel.receive(timeout_s)
        except TimeoutError:
            raise DraftWorkerError(f"the draft process did not answer within {timeout_s:g} s") from None
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if number == FAILED:
            raise _failed(*reply) from _cause(*reply)
        return number, reply

    def _lost(self) -> DraftWorkerError:
        """The connection ended. Raises what the child said before, if that was not read yet."""
        try:
            while True:
                number, reply = self._channel.receive(LAST_WORDS_S)
                if number == FAILED:
                    raise _failed(*reply) from _cause(*reply)
        except (EOFError, OSError):
            return DraftWorkerError(f"the draft process is gone ({self._child.how_it_ended()})")


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
