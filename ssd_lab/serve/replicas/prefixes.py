"""Which replicas have seen how a prompt begins: their KV blocks of it can be shared, and need not be computed again."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

CHUNK = 128  # characters: shorter beginnings are not worth a longer queue
MOST_CHUNKS = 128  # of a prompt; what comes later tells nothing more of where it should go
MOST_KNOWN = 65_536  # beginnings that are remembered
MOST_HOLDERS = 8  # replicas that are remembered of one beginning


def marks_of(body: bytes) -> tuple[int, ...]:
    """A number for each beginning of a request's prompt, the longest last; none for what is no request."""
    try:
        document = json.loads(body)
        text = f"{document['model']}\n{json.dumps(document.get('messages') or document['prompt'], ensure_ascii=False)}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # whoever reads it says what is wrong
        return ()
    whole = hashlib.blake2b(digest_size=8)
    marks = []
    for start in range(0, min(len(text) - CHUNK + 1, CHUNK * MOST_CHUNKS), CHUNK):
        whole.update(text[start : start + CHUNK].encode("utf-8", "surrogatepass"))
        marks.append(int.from_bytes(whole.copy().digest(), "big"))
    return tuple(marks)


class PrefixTable:
    """Remembers the replicas that beginnings were sent to, the latest ones."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._holders: OrderedDict[int, list[Any]] = OrderedDict()

    def holders(self, marks: Sequence[int]) -> list[Any]:
        """Replicas that have seen the longest beginning that any has seen; the latest first."""
        return next((list(self._holders[mark]) for mark in reversed(marks) if mark in self._holders), [])

    def note(self, marks: Sequence[int], replica: Any) -> None:
        """A prompt with these beginnings went to this replica."""
        for mark in marks:
            known = self._holders.pop(mark, [])
            self._holders[mark] = [replica, *(other for other in known if other != replica)][:MOST_HOLDERS]
        while len(self._holders) > self._most:
            self._holders.popitem(last=False)
