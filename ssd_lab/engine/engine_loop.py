"""What the engine's thread does: take what callers want, do a step, tell each caller what is its own."""

from __future__ import annotations

import copy
import queue
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.engine.call import Call
from ssd_lab.engine.engine import Engine
from ssd_lab.errors import CacheCapacityError

_CHANGE = "lower max_batch, or num_blocks so that more is left for steps"


class EngineLoop:
    """Owns an engine for as long as `run` runs, on one thread. Everyone else speaks to it through `inbox`.

    inbox: work to be done between two steps. threads: torch's threads for this thread, None to leave them alone.
    failure: what ended the thread, if it was not told to stop.
    """

    def __init__(self, engine: Engine, device: torch.device, threads: int | None) -> None:
        self.engine = engine
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._device = device
        self._threads = threads
        self._calls: list[Call] = []
        self._stopped = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until `stop` was taken from the inbox. Asleep while there is nothing to do."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # OpenMP keeps this number for each thread apart
        try:
            with current(self._device):
                while not self._stopped:
                    self._take_work()
                    if not self._stopped and self._may_step:
                        self._step()
        except BaseException as error:  # a fault of this loop itself: callers must hear of it, who would wait in vain
            self.failure = error
            self._end_all(error)

    # What follows is put into the inbox.

    def stop(self) -> None:
        """End every call, with what it has, and the thread."""
        self._stopped = True
        try:
            self.engine.close()
        finally:
            self._end_all(None)

    def begin(self, call: Call) -> None:
        """Submit the requests of a call."""
        self._calls.append(call)
        try:
            for request in call.requests:
                number = self.engine.submit(
                    request.prompt_ids,
                    request.params,
                    seed=request.seed,
                    prompt=request.prompt,
                    behind=request.behind,
                    expected=request.expected,
                    recording=call.recording,
                )
                call.sequences.append(self.engine.sequence(number))
        except Exception as error:
            self.cancel(call, error)

    def cancel(self, call: Call, error: Exception | None = None) -> None:
        """End what is left of a call's requests."""
        if call not in self._calls:
            return
        try:
            if self._calls == [call]:
                self.engine.cancel_all()  # with the round that is on its way, of which nobody will hear
            for sequence in call.sequences:
                self.engine.cancel(sequence.request_id)
        except Exception as failure:
            error = error or failure
        self._end(call, error)

    # What follows is this thread's own.

    @property
    def _may_step(self) -> bool:
        """A caller that is alone and behind with its steps is waited for; if there are others, it catches up."""
        return bool(self._calls) and not (len(self._calls) == 1 and self._calls[0].is_behind)

    def _take_work(self) -> None:
        """Do what is in the inbox; wait for it where there is no step to do."""
        while True:
            try:
                work = self.inbox.get(block=not self._may_step and not self._stopped)
            except queue.Empty:
                return
            work()
            del work  # while this thread sleeps it keeps nobody's call alive

    def _step(self) -> None:
        try:
            with explain_out_of_memory("running a round", CacheCapacityError, device=self._device, change=_CHANGE):
                self.engine.step()
        except BaseException as error:  # whatever it is, those who wait must hear of it; the engine may go on
            self._fail(error)
            return
        for call in self._calls:
            call.tell_step()
        for call in [each for each in self._calls if each.has_ended()]:
            self._end(call, None)

    def _fail(self, error: BaseException) -> None:
        """A step failed for no single request: every call in it ends with an error of its own. Those that still wait
        for a place hold nothing of it and go on, unless nobody else was there: it would fail again and again.
        """
        waiting = [call for call in self._calls if all(self.engine.waits(each.request_id) for each in call.sequences)]
        if len(waiting) == len(self._calls):
            waiting = []
        try:
            self.engine.cancel_all(but={sequence.request_id for call in waiting for sequence in call.sequences})
        except Exception as second:
            error.add_note(f"and ending the requests failed: {type(second).__name__}: {second}")
            waiting = []
        self._end_all(error, but=waiting)

    def _end(self, call: Call, error: BaseException | None) -> None:
        self._calls.remove(call)
        call.tell_end(error)

    def _end_all(self, error: BaseException | None, but: Sequence[Call] = ()) -> None:
        for number, call in enumerate([each for each in self._calls if each not in but]):
            self._end(call, error if number == 0 else _another(error))


def _another(error: BaseException | None) -> Any:
    """The same error for another thread: raising one object in two would mix their tracebacks and outputs."""
    try:
        copied = copy.copy(error)
    except Exception:  # an exception that cannot be made again from its arguments
        return error
    if copied is not None and error is not None:
        copied.__cause__, copied.__traceback__ = error.__cause__ or error, error.__traceback__
    return copied
