"""A model behind an OpenAI-compatible server: the same conversation, without the rounds."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

import httpx

from ssd_lab.chat.pieces import AnswerNumbers, Message, Piece
from ssd_lab.client.address import Address, model_names, refusal, timeouts, unreachable
from ssd_lab.client.stream import EventReader, finished
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.trace import Trace

ANSWER_S = 120.0  # longest silence of a server
_OF_THE_API = ("temperature", "top_p", "max_tokens", "stop", "seed")


class RemoteModel:
    """A model of a server. model: None takes the first that it lists. Raises ServerError if it does not answer, and
    ConfigError for a model that it does not have.
    """

    def __init__(self, address: Address, model: str | None = None) -> None:
        self._address = address
        self._client = httpx.Client(timeout=timeouts(ANSWER_S), headers=address.headers, follow_redirects=True)
        try:
            self._models = model_names(self._client, address)
            self._model = self._models[0] if model is None else self._found(model)
        except BaseException:
            self.close()
            raise
        self._numbers = AnswerNumbers(self._model, 0, "cancelled", 0.0)

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self._model} at {self._address.base}"

    def remarks(self) -> list[str]:
        """What a server does not tell."""
        return ["A server sends text and counts: where each token came from and the rounds (/tree) stay there."]

    def fit(self, messages: Sequence[Message], params: SamplingParams) -> int:
        """0: the server knows what fits, and says so."""
        return 0

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Piece]:
        """The answer as the server sends it; closing the iterator closes the connection, which ends it there."""
        url = f"{self._address.base}/chat/completions"
        reader, usage, speculation = EventReader(), dict[str, Any](), dict[str, Any]()
        finish_reason: str | None = None
        first_s: float | None = None
        num_events, start_s = 0, time.perf_counter()
        try:
            with self._client.stream("POST", url, json=self._body(messages, params)) as response:
                if response.status_code != httpx.codes.OK:
                    raise refusal(url, response.status_code, response.read().decode("utf-8", "replace"))
                for line in response.iter_lines():
                    delta = reader.read(line)
                    if delta is None:
                        continue
                    usage, speculation = delta.usage or usage, delta.speculation or speculation
                    finish_reason = delta.finish_reason or finish_reason
                    if delta.text:
                        num_events += 1
                        first_s = time.perf_counter() if first_s is None else first_s
                        yield Piece(delta.text)
            finished(reader, finish_reason)
        except httpx.HTTPError as error:
            raise unreachable(url, error) from error
        finally:
            times = (start_s, first_s, time.perf_counter())
            self._numbers = self._counted(usage, speculation, finish_reason or "cancelled", num_events, times)

    def numbers(self) -> AnswerNumbers:
        """Of the last answer, by this side's clock and the server's counts."""
        return self._numbers

    def trace(self) -> Trace:
        """Raises ConfigError: a server sends no rounds."""
        page = self._address.base.removesuffix("/v1")
        raise ConfigError(
            "rounds are not sent over the API: look at them on the server's own page "
            f"({page}/, if it is `ssd-lab serve`), or chat without --url"
        )

    def choices(self) -> str:
        """The models that the server lists."""
        return f"{', '.join(self._models)} (the server's models; `ssd-lab serve` has one for each strategy)"

    def switch(self, text: str) -> None:
        """Another of the server's models, by name or by what stands after its last colon (a strategy of ours)."""
        self._model = self._found(text)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _found(self, name: str) -> str:
        wanted = name.strip()
        found = [model for model in self._models if wanted in (model, model.rpartition(":")[2])]
        if not found:
            raise ConfigError(f"the server has no model {wanted!r}: it has {', '.join(self._models)}")
        return found[0]

    def _body(self, messages: Sequence[Message], params: SamplingParams) -> dict[str, Any]:
        """What the API has by name, and of the rest what was changed, as vLLM and `ssd-lab serve` take it."""
        fields = params.model_dump()
        changed = params.model_dump(exclude_defaults=True)
        own = {name: fields[name] for name in _OF_THE_API if fields[name] not in (None, [])}
        more = {name: value for name, value in changed.items() if name not in own and name != "logprobs"}
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return {"model": self._model, "messages": list(messages), **own, **more, **options}

    def _counted(
        self,
        usage: dict[str, Any],
        speculation: dict[str, Any],
        finish_reason: str,
        num_events: int,
        times: tuple[float, float | None, float],
    ) -> AnswerNumbers:
        start_s, first_s, end_s = times
        counted = usage.get("completion_tokens")
        num_tokens = counted if isinstance(counted, int) else num_events
        speed = None
        if first_s is not None and num_tokens > 1 and end_s > first_s:
            speed = (num_tokens - 1) / (end_s - first_s)
        return AnswerNumbers(
            strategy=self._model,
            num_tokens=num_tokens,
            finish_reason=finish_reason,
            seconds=end_s - start_s,
            first_token_s=None if first_s is None else first_s - start_s,
            tokens_per_second=speed,
            tokens_per_round=_number(speculation.get("mean_acceptance_length")),
            acceptance_rate=_number(speculation.get("draft_acceptance_rate")),
            notes=() if isinstance(counted, int) else ("tokens: events of the stream, the server sent no counts",),
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
