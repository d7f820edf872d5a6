"""Every error a caller can cause: each says what was given, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SsdLabError(Exception):
    """Base of all errors that ssd_lab raises on purpose.

    outputs, trace: what a run had generated when it failed (a list of `Output`) and its rounds (a `Trace`), so that
    nothing finished is lost. The error of one request carries those of the others.
    """

    outputs: Sequence[Any] = ()
    trace: Any = None

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows (IPython asks for it): the sentence alone, for the mistake is not in this package."""
        return [f"{type(self).__name__}: {self}"]


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended this. result: what there was by then (a `RunResult`, `Comparison` or `Tuning`, which marks what is
    incomplete).
    """

    def __init__(self, result: Any, message: str) -> None:
        super().__init__(message)
        self.result = result


class ConfigError(SsdLabError, ValueError):
    """A setting, a field or a combination of them is not allowed."""


class UnknownStrategyError(ConfigError):
    """No strategy is registered under the given name."""


class PromptError(SsdLabError, ValueError):
    """A prompt is empty, too long, or holds ids outside the vocabulary."""


class DatasetError(SsdLabError):
    """A set of prompts is missing, too small, damaged, or was not to be had."""


class ModelLoadError(SsdLabError):
    """A checkpoint is missing, truncated, or does not fit its config."""


class DraftMismatchError(ModelLoadError):
    """The draft's vocabulary or tokenizer does not fit the target's."""


class CacheCapacityError(SsdLabError):
    """A request needs more KV blocks than the cache has."""


class NonFiniteLogitsError(SsdLabError):
    """A model produced NaN or infinite logits."""


class ProposerError(SsdLabError):
    """A strategy's proposer raised, or returned something of the wrong shape."""


class DraftWorkerError(SsdLabError):
    """The draft worker died or did not answer in time."""


class DraftLateError(DraftWorkerError):
    """The draft worker did not answer in time; it may still."""


class RankError(SsdLabError):
    """A process that holds a part of the target died or did not answer in time: what it was part of cannot go on."""


class DeviceTimeoutError(SsdLabError):
    """A device did not finish its work in time."""


class ForkedProcessError(SsdLabError):
    """What belongs to one process was used in another that was forked from it."""


class EngineStoppedError(SsdLabError):
    """The thread that owns the engine has ended or does not answer."""


class ServerError(SsdLabError):
    """A server did not answer, refused a request, or sent what is no answer. reason: a few words to count such by."""

    def __init__(self, message: str, reason: str = "server") -> None:
        super().__init__(message)
        self.reason = reason


class TraceFormatError(SsdLabError, ValueError):
    """A trace file is damaged or of another schema version."""
