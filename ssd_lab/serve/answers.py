"""Answers as the API writes them: whole ones, and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.engine.call import Piece
from ssd_lab.serve.job import Job
from ssd_lab.serve.token_probs import Entry, of_chat, of_completion


@dataclass
class Choice:
    """One text so far. echoed: what of it is the prompt."""

    text: str = ""
    logprobs: list[Entry | None] = field(default_factory=list)
    finish_reason: str | None = None
    echoed: str = ""
    echoed_tokens: list[str] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """What became certain."""
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.finish_reason = piece.finish_reason


class Answer:
    """Writes one request's answer in the shape of its endpoint."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._kind = "chat.completion" if job.is_chat else "text_completion"
        self._id = f"{'chatcmpl' if job.is_chat else 'cmpl'}-{job.id}"
        self._tokenizer = job.served.llm.target.tokenizer
        self._told = [0] * len(job.prompts)  # characters of each text, for the places of its tokens

    def whole(self, choices: Sequence[Choice], usage: dict[str, Any], metrics: dict[str, Any] | None) -> dict[str, Any]:
        """All at once."""
        return {
            **self._head(self._kind),
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
            "usage": usage,
            "metrics": metrics,
        }

    def opening(self, index: int, choice: Choice) -> dict[str, Any] | None:
        """The first chunk of a text: who speaks, or the echoed prompt. None if there is nothing to say."""
        if self._job.is_chat:
            return self._chunk(
                {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            )
        if not choice.echoed:
            return None
        own = {"index": index, "text": choice.echoed, "finish_reason": None}
        return self._chunk({**own, "logprobs": self._completion_logprobs(index, choice.logprobs, choice)})

    def piece(self, piece: Piece) -> dict[str, Any]:
        """A chunk of a text; the last one has its finish_reason."""
        reason = None if piece.finish_reason in ("cancelled", "error") else piece.finish_reason  # an error follows
        own: dict[str, Any] = {"index": piece.index, "finish_reason": reason}
        if self._job.is_chat:
            tops, entries = self._job.logprobs, piece.logprobs
            own["logprobs"] = None if tops is None or not entries else of_chat(entries, tops, self._tokenizer)
            own["delta"] = {"content": piece.text} if piece.text or reason is None else {}
        else:
            own["text"] = piece.text
            own["logprobs"] = self._completion_logprobs(piece.index, piece.logprobs)
        return self._chunk(own)

    def last(self, usage: dict[str, Any], metrics: dict[str, Any] | None) -> dict[str, Any]:
        """The chunk with the counts."""
        return {**self._head(self._chunk_kind), "choices": [], "usage": usage, "metrics": metrics}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self._job.is_chat else self._kind

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._job.created, "model": self._job.served.name}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head(self._chunk_kind), "choices": [choice]}
        return {**chunk, "usage": None} if self._job.body.include_usage else chunk

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        own: dict[str, Any] = {"index": index, "finish_reason": choice.finish_reason}
        if not self._job.is_chat:
            own["text"] = choice.echoed + choice.text
            return {**own, "logprobs": self._completion_logprobs(index, choice.logprobs, choice)}
        tops = self._job.logprobs
        known = [entry for entry in choice.logprobs if entry is not None]
        own["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        return {**own, "logprobs": None if tops is None else of_chat(known, tops, self._tokenizer)}

    def _completion_logprobs(
        self, index: int, entries: Sequence[Entry | None], choice: Choice | None = None
    ) -> dict[str, Any] | None:
        tops = self._job.logprobs
        if tops is None:
            return None
        texts = () if choice is None else choice.echoed_tokens
        shown = of_completion(entries, tops, self._tokenizer, offset=self._told[index], texts=texts)
        self._told[index] += sum(map(len, shown["tokens"]))
        return shown
