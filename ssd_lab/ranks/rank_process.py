"""The first rank's hold on another one's process: what it is told, what it answered, how it ended."""

from __future__ import annotations

from typing import Any

from ssd_lab import errors
from ssd_lab.errors import RankError, SsdLabError
from ssd_lab.hosts.places import Place
from ssd_lab.links.channel import Channel
from ssd_lab.links.draft_process import FAILED
from ssd_lab.ranks.rank_worker import RankSetup

LAST_WORDS_S = 1.0  # for reading why a process ended, after its end was noticed
START_S = 120.0  # for a process to start and import what it needs, on a machine that is busy


class RankProcess:
    """A process of its own session, which ends when its connection does, also if this process dies. place: where."""

    def __init__(self, setup: RankSetup, place: Place) -> None:
        self.rank, self.place, self._role = setup.rank, place, setup.share.role
        self._number = 0
        self._last_words: tuple[str, str, str] | None = None
        try:
            self._child = place.starter.start(threads=setup.threads)
        except OSError as error:
            raise RankError(f"rank {self.rank} of the {self._role} cannot be started ({place}): {error}") from error
        self._channel = Channel(self._child.connection, send_timeout_s=setup.meeting.limit_s)
        try:
            self.tell(setup)
        except BaseException:
            self.close(at_once=True)
            raise

    def started(self) -> None:
        """Wait until it is at work."""
        self.answer(START_S)
        self._child.started()

    def tell(self, message: Any) -> None:
        """Send a message. Raises RankError if the process is gone or takes nothing in."""
        self._number += 1
        try:
            self._channel.send((self._number, message))
        except TimeoutError:
            raise RankError(f"{self} takes in no messages: it is stuck") from None
        except (EOFError, OSError) as error:
            raise self.lost() from error

    def answer(self, timeout_s: float) -> Any:
        """Wait for the reply to the last message. Raises RankError, or the process's own error if that is one of ours
        that says what a caller did.
        """
        try:
            number, reply = self._channel.receive(timeout_s)
        except TimeoutError:
            raise RankError(f"{self} did not answer within {timeout_s:g} s") from None
        except (EOFError, OSError) as error:
            raise self.lost() from error
        if number == FAILED:
            self._last_words = reply
            raise self._failed(*reply)
        return reply

    def lost(self) -> SsdLabError:
        """Why it is gone: what it said before, or how it ended. What it said is read once, and kept."""
        try:
            while self._last_words is None:
                number, reply = self._channel.receive(LAST_WORDS_S)
                if number == FAILED:
                    self._last_words = reply
            return self._failed(*self._last_words)
        except TimeoutError:
            return RankError(f"{self} does not answer")
        except (EOFError, OSError):
            return RankError(f"{self} is gone ({self._child.how_it_ended()})")

    @property
    def is_running(self) -> bool:
        """Is the process there, and not ending?"""
        return self._child.is_running

    def close(self, *, at_once: bool = False) -> None:
        """Close the connection, at which it ends; kill it if it does not within 5 s. at_once: kill it now."""
        self._channel.close()
        if at_once:
            self._child.kill()
        self._child.end()

    def abandon(self) -> None:
        """In a forked process: leave it to its owner."""
        self._channel.abandon()

    def __str__(self) -> str:
        return f"rank {self.rank} of the {self._role} (process {self._child.pid}, {self.place})"

    def _failed(self, name: str, text: str, traceback: str) -> SsdLabError:
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, SsdLabError) and kind is not RankError:
            error: SsdLabError = kind(text)
        else:
            error = RankError(f"{self} failed: {name}: {text}")
        error.add_note(f"in {self}:\n{traceback}")
        return error
