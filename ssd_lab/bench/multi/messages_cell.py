"""A round's two messages through a real link, there and back, over each transport that there is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.bench.multi.answers import Answers
from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.hosts.launcher import LauncherServer
from ssd_lab.links.link import Link
from ssd_lab.links.messages import RoundMessage
from ssd_lab.links.opening import LinkKind, open_link
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.rounds.rows import KnownState

START_LIMIT_S, ANSWER_LIMIT_S = 120.0, 60.0
BY_STREAM = "a stream of another device"  # of the engine's process: a draft alone on a GPU
IN_MEMORY = "two processes, shared memory"
BETWEEN_HOSTS = "two processes, TCP as between hosts"  # over this host's loopback
TRANSPORTS: dict[str, tuple[LinkKind, bool]] = {  # the kind of link, and whether rounds travel in slots
    "in the engine's thread": ("inline", False),
    BY_STREAM: ("stream", False),
    "two threads": ("thread", False),
    IN_MEMORY: ("process", True),
    "two processes, socket": ("process", False),
    BETWEEN_HOSTS: ("process", True),
}
PAYLOADS = {  # rows, length of a distribution (0: temperature 0)
    "1 row, greedy": (1, 0),
    "16 rows, greedy": (16, 0),
    "1 row of 4,096 probabilities": (1, 4096),
    "16 rows of 4,096 probabilities": (16, 4096),
}


@dataclass(frozen=True)
class MessagesCell(Cell):
    """From the outcome on the host of the target until its draft tokens are on the target's device, by a draft that
    answers at once.
    """

    piece: ClassVar[str] = "links"

    transport: str
    target: str
    draft: str
    trips: int

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.piece}/messages/{self.target} to {self.draft}/{self.transport}"

    @property
    def group(self) -> str:
        """See `Cell`."""
        return self.piece

    @property
    def estimate_s(self) -> float:
        """The processes' starts."""
        return 25.0

    def run(self, kept: Kept) -> dict[str, Any]:
        """Microseconds by payload: the median, and what the tenth part that was fastest took."""
        device, found = torch.device(self.target), {}
        for name, (rows, vocab) in PAYLOADS.items():
            with self._opened(rows, vocab) as link:
                times = there_and_back(link, rows, self.trips, until_on(device))
            found[name] = {"median_us": statistics.median(times), "tenth_us": statistics.quantiles(times, n=10)[0]}
        return {"payloads": found}

    @contextmanager
    def _opened(self, rows: int, vocab: int) -> Iterator[Link]:
        """A link of this transport to a draft that answers at once."""
        with ExitStack() as closing:
            kind, in_memory = TRANSPORTS[self.transport]
            source = Answers(rows, vocab, in_memory, device=self.draft)
            if self.transport == BETWEEN_HOSTS:
                server = closing.enter_context(LauncherServer("127.0.0.1"))
                launcher = closing.enter_context(server.at_work(1))
                opened: Link = ProcessLink(source, start_timeout_s=START_LIMIT_S, starter=launcher)
            else:
                opened = open_link(
                    kind, source, torch.device(self.draft), allowed=[kind], draft="a draft that answers at once",
                    start_timeout_s=START_LIMIT_S,
                )  # fmt: skip
            closing.callback(opened.close)
            yield opened


def there_and_back(
    link: Link, rows: int, trips: int, until: Callable[[torch.Tensor], None] = lambda tokens: None
) -> list[float]:
    """Microseconds of each trip, the first tenth left out. until: what the asking side still does with the tokens."""
    message = RoundMessage(1, KnownState.of([9] * rows, [1] * rows, [2] * rows), torch.ones(rows, dtype=torch.int64))
    times = []
    for _ in range(trips):
        start_s = time.perf_counter()
        until(link.ask(message).answer(ANSWER_LIMIT_S).tokens)
        times.append(1e6 * (time.perf_counter() - start_s))
    return times[trips // 10 :]


def until_on(device: torch.device) -> Callable[[torch.Tensor], None]:
    """Until a tensor is there."""

    def wait(tokens: torch.Tensor) -> None:
        tokens.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait
