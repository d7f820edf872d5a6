"""One engine, one thread that owns it, any number of callers: each gets its own."""

from __future__ import annotations

import os
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from ssd_lab.engine.call import Call, Event
from ssd_lab.engine.engine import Engine
from ssd_lab.engine.engine_loop import EngineLoop
from ssd_lab.engine.recording import Recording
from ssd_lab.errors import ConfigError, EngineStoppedError, ForkedProcessError

LOOK_S = 2.0  # how often a waiting caller looks whether the thread is still there
FORGOTTEN_S = 10.0  # longest wait for the thread of a service that was not closed
Result = TypeVar("Result")


class EngineService:
    """Runs an engine on a thread of its own, which sleeps while there is nothing to do. Close it, or drop it.

    Every method may be called from any thread, but not from the engine's own (a strategy's), and not from a forked
    child of the process that made it, which has no such thread: ConfigError, ForkedProcessError.

    answer_limit_s: how long `cancel`, `ask` and `close` wait for the step that is being done.
    """

    def __init__(self, engine: Engine, device: torch.device, *, threads: int | None, answer_limit_s: float) -> None:
        self._engine = engine
        self._answer_limit_s = answer_limit_s
        self._process = os.getpid()
        self._closed = False
        self._loop = EngineLoop(engine, device, threads)
        # the thread knows the loop alone, so that a service that everybody has forgotten can go
        self._thread = threading.Thread(target=self._loop.run, name="ssd_lab-engine", daemon=True)
        self._end = weakref.finalize(self, _end, self._loop, self._thread, self._process)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Was it closed, so that nothing changes any more?"""
        return self._closed

    @property
    def is_alive(self) -> bool:
        """Is it open, with its thread still there?"""
        return not self._closed and self._thread.is_alive()

    def recording(self) -> Recording:
        """A place to record the requests of a call in."""
        return self._engine.recorder.recording()

    def check(self) -> None:
        """Raise an error in words if nothing can be asked of the engine here."""
        self._check_process()
        if threading.current_thread() is self._thread:
            raise ConfigError("an engine cannot be asked for more from within its own round: call it from elsewhere")
        if self._closed:
            raise ConfigError("the engine is closed: make a new one")
        if not self._thread.is_alive():
            raise self._stopped()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkedProcessError(
                f"this LLM belongs to process {self._process}, and a forked child (here process {os.getpid()}) cannot "
                "use it: make the LLM in the child, or start the child with multiprocessing's 'spawn' method"
            )

    def begin(self, call: Call) -> None:
        """Submit the requests of a call, which were checked before (`Engine.check`)."""
        self.check()
        self._loop.inbox.put(partial(self._loop.begin, call))

    def next_event(self, call: Call, within_s: float | None = None) -> Event | None:
        """What the caller is told next; None if nothing is, within this time. Ctrl-C gets through.

        Raises EngineStoppedError if the engine's thread is gone.
        """
        self._check_process()
        end_s = None if within_s is None else time.monotonic() + within_s
        while True:
            left_s = LOOK_S if end_s is None else min(LOOK_S, max(0.0, end_s - time.monotonic()))
            try:
                return call.events.get(timeout=left_s)
            except queue.Empty:
                if not self._thread.is_alive() and call.events.empty():
                    raise self._stopped() from None
                if end_s is not None and time.monotonic() >= end_s:
                    return None

    def step_done(self, call: Call) -> None:
        """The caller is done with a step that it was told of, so the next may come."""
        self._loop.inbox.put(call.answer_step)

    def cancel(self, call: Call) -> None:
        """End what is left of a call's requests; when this returns their blocks are free.

        Raises EngineStoppedError if the engine does not answer within the limit.
        """
        if self._closed or os.getpid() != self._process or not self._thread.is_alive():
            return
        if threading.current_thread() is self._thread:  # a caller was collected as garbage there, of all places
            self._loop.inbox.put(partial(self._loop.cancel, call))
            return
        try:
            self.ask(partial(self._loop.cancel, call))
        except (ConfigError, EngineStoppedError):
            if not self._closed:  # else that has ended it
                raise

    def cancel_soon(self, call: Call) -> None:
        """End what is left of a call's requests after the step that is being done, without waiting for it."""
        self._loop.inbox.put(partial(self._loop.cancel, call))

    def ask(self, question: Callable[[], Result], *, limit_s: float | None = None) -> Result:
        """What the question returns, asked on the engine's thread between two steps. limit_s: for its answer, if that
        takes longer than a step.
        """
        self.check()
        limit_s = self._answer_limit_s if limit_s is None else limit_s
        answers: queue.SimpleQueue[Callable[[], Result]] = queue.SimpleQueue()
        self._loop.inbox.put(lambda: answers.put(_answer(question)))
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            try:
                return answers.get(timeout=LOOK_S)()
            except queue.Empty:
                if not self._thread.is_alive() and answers.empty():
                    raise self._stopped() from None
        raise EngineStoppedError(f"the engine did not answer within {limit_s:g} s: it hangs in a step")

    def close(self) -> None:
        """End every call, close the engine and end the thread; calling it twice is fine. In a forked child nothing
        happens: the engine is its parent's.
        """
        if os.getpid() != self._process:
            return
        if not self._closed:
            self._closed = True
            self._loop.inbox.put(self._loop.stop)
        if threading.current_thread() is self._thread:
            return
        self._thread.join(self._answer_limit_s)
        self._end.detach()
        if self._thread.is_alive():
            warnings.warn(
                f"the engine's thread did not end within {self._answer_limit_s:g} s: it hangs in a step",
                RuntimeWarning,
                stacklevel=2,
            )
        elif (failure := self._loop.failure) is not None:
            self._loop.failure = None  # it is said once
            raise failure

    def _stopped(self) -> EngineStoppedError:
        if self._closed:
            return EngineStoppedError("the engine was closed meanwhile: make a new one")
        return EngineStoppedError(f"the engine's thread has ended ({self._loop.failure!r}): make a new LLM")


def _answer(question: Callable[[], Result]) -> Callable[[], Result]:
    """The question's result or error, for whoever asked."""
    try:
        result = question()
    except BaseException as error:
        caught = error

        def failed() -> Result:
            raise caught

        return failed
    return lambda: result


def _end(loop: EngineLoop, thread: threading.Thread, process: int) -> None:
    """A service was forgotten, or the interpreter ends: a thread that computes then may bring the process down."""
    if os.getpid() == process and thread.is_alive():
        loop.inbox.put(loop.stop)
        if threading.current_thread() is not thread:
            thread.join(FORGOTTEN_S)
