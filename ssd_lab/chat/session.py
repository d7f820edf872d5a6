"""One conversation: what was said, how it is sampled, and what each answer took."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ssd_lab.chat.pieces import AnswerNumbers, ChatModel, Message, Piece
from ssd_lab.common.validation import validated
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError, PromptError

NOT_OF_A_CHAT = ("logprobs",)  # settings that nothing here would show
SETTINGS = tuple(name for name in SamplingParams.model_fields if name not in NOT_OF_A_CHAT)


@dataclass(frozen=True)
class Turn:
    """A question and its answer; the answer may have been stopped."""

    question: str
    answer: str
    numbers: AnswerNumbers


class Session:
    """A conversation with a model. Nothing that goes wrong with one message changes what was said before.

    params: of every answer; without a seed the answers of a session get `seed`, `seed` + 1, ...
    """

    def __init__(self, model: ChatModel, params: SamplingParams, *, seed: int = 0, system: str | None = None) -> None:
        self.model = model
        self.params = params
        self.system = system
        self.turns: list[Turn] = []
        self.left_out = 0  # oldest turns that the model did not read for the last answer
        self._seed = seed

    def answer(self, question: str) -> Generator[Piece]:
        """The answer in pieces; closing the iterator (or Ctrl-C) ends the answer, and what came of it is kept.

        Raises SsdLabError; a question that got no word of an answer is forgotten.
        """
        if not question.strip():
            raise PromptError("the message is empty: write something")
        messages = self.messages(question)
        params = self._params_of_this_turn()
        self.left_out = self.model.fit(messages, params)
        head = 0 if self.system is None else 1
        said: list[str] = []
        try:
            with closing(
                self.model.stream([*messages[:head], *messages[head + 2 * self.left_out :]], params)
            ) as pieces:
                for piece in pieces:
                    said.append(piece.text)
                    yield piece
        finally:
            numbers = self.model.numbers()
            if said or numbers.finish_reason in ("stop", "length"):
                self.turns.append(Turn(question, "".join(said), numbers))

    def messages(self, question: str | None = None) -> list[Message]:
        """The conversation as the model is told it, with a question that is not answered yet."""
        said: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return said if question is None else [*said, {"role": "user", "content": question}]

    def set(self, name: str, value: Any) -> None:
        """Change a field of `SamplingParams` for the answers to come. Raises ConfigError."""
        if name in NOT_OF_A_CHAT:
            raise ConfigError(f"{name} is not shown in a chat: set one of {', '.join(SETTINGS)}")
        self.params = validated(SamplingParams, {**self.params.model_dump(), name: value}, name="/set")

    def forget(self) -> None:
        """Begin anew, with the settings as they are."""
        self.turns, self.left_out = [], 0

    def _params_of_this_turn(self) -> SamplingParams:
        if self.params.seed is not None:
            return self.params
        return self.params.model_copy(update={"seed": self._seed + len(self.turns)})
