"""What both kinds of request share: how to sample, what is streamed, and the fields that are refused."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ssd_lab.config import SamplingParams

STOPS = 16  # most stop strings of a request
STOP_IDS = 256  # and token ids that end a text
ITEMS = 4096  # most fields, messages and their parts, or prompts: each is looked at while other requests wait
_SEED = 2**63
_FIELDS = SamplingParams.model_fields


def refuse(param: str, message: str) -> PydanticCustomError:
    """An error about a field, for a validator to raise."""
    return PydanticCustomError("unsupported", message, {"param": param})


def whole_characters(text: str) -> str:
    """The text. Raises ValueError if it holds a half of a surrogate pair, which JSON allows and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate): send valid Unicode") from None
    return text


def check_count(count: int, param: str, what: str) -> None:
    """Raise an error about a field, for a validator, where there is far too much to look at."""
    if count > ITEMS:
        raise refuse(param, f"{count} {what} were sent, and {ITEMS} is the most")


Text = Annotated[str, AfterValidator(whole_characters)]


class StreamOptions(BaseModel):
    """What a stream tells besides its text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = Field(False, description="one more chunk at the end, with the counts and no choices")
    include_obfuscation: Literal[False] = Field(False, description="padding of chunks, which this server does not do")


def _stop_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_STOP_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": STOPS},
        {"type": "null"},
    ]
}
Stop = Annotated[
    list[Annotated[str, Field(min_length=1)]] | None,
    Field(max_length=STOPS),
    BeforeValidator(_stop_list),
    WithJsonSchema(_STOP_SCHEMA),
]


class SamplingRequest(BaseModel):
    """Base of the requests that generate.

    `inert`: fields that say nothing about the text (labels for the client's own books), which pass. `refused`: fields
    of the API that this server does not do, with the values that mean "leave it off", which pass; others are errors.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    inert: ClassVar[tuple[str, ...]] = ("user", "safety_identifier", "prompt_cache_key", "metadata")
    refused: ClassVar[dict[str, tuple[Any, ...]]] = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "repetition_penalty": (1,),
        "logit_bias": ({},),
        "best_of": (1,),
        "min_tokens": (0,),
        "use_beam_search": (False,),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
        "structured_outputs": (),
    }

    model: str = Field(description="a name of /v1/models: the target, or target:strategy", min_length=1)
    temperature: float | None = Field(None, ge=0, le=10, description="0 is greedy; None is 1")
    top_p: float | None = Field(None, gt=0, le=1, description="share of probability to sample from")
    top_k: int | None = Field(None, ge=-1, description="likeliest tokens to sample from; 0 or -1: all")
    min_p: float | None = Field(None, ge=0, le=1, description=_FIELDS["min_p"].description)
    n: int | None = Field(None, ge=1, le=1024, description="texts for each prompt; None is 1")
    stop: Stop = Field(None, description="text that ends an output, or several")
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, max_length=STOP_IDS, description="token that ends an output"
    )
    seed: int | None = Field(None, ge=-_SEED, lt=_SEED, description="same seed, same text; None: another each time")
    ignore_eos: bool | None = Field(None, description=_FIELDS["ignore_eos"].description)
    stream: bool | None = Field(None, description="send the text as it comes (server-sent events)")
    stream_options: StreamOptions | None = Field(None, description="with `stream` only")

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, body: Any) -> Any:
        """Take out what passes without a meaning here, and refuse what would have one."""
        if not isinstance(body, dict):
            return body
        check_count(len(body), next(reversed(body), ""), "fields")
        kept = {}
        for name, value in body.items():
            if name in cls.inert or (name in cls.refused and value is None):
                continue
            if name not in cls.refused:
                kept[name] = value
            elif not any(
                value == off and isinstance(value, bool) == isinstance(off, bool) for off in cls.refused[name]
            ):
                passing = " or ".join(map(repr, cls.refused[name])) or "null"
                raise refuse(name, f"this server does not do that, and drops no field: leave it out (or {passing})")
        return kept

    @model_validator(mode="after")
    def _streamed(self) -> SamplingRequest:
        if self.stream_options is not None and not self.stream:
            raise refuse("stream_options", "is for streams only: set stream, or leave it out")
        return self

    @property
    def choices(self) -> int:
        """Texts for each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Do the counts end the stream?"""
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self, max_tokens: int, logprobs: int) -> list[SamplingParams]:
        """How each text of one prompt is sampled: the first with the request's own seed, the others with seeds made of
        it.
        """
        seed = secrets.randbits(62) if self.seed is None else self.seed
        own = SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            max_tokens=max_tokens,
            stop=self.stop or [],
            stop_token_ids=self.stop_token_ids or [],
            seed=seed,
            logprobs=logprobs,
            ignore_eos=bool(self.ignore_eos),
        )
        others = (own.model_copy(update={"seed": _other_seed(seed, index)}) for index in range(1, self.choices))
        return [own, *others]


def _other_seed(seed: int, index: int) -> int:
    """Of the text number `index` of a request: far from every seed that people choose, within 64 bits."""
    return (seed + index * 0x9E3779B97F4A7C15 + _SEED) % (2 * _SEED) - _SEED
