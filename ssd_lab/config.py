"""The settings a caller gives: how to sample a request, and how to build an engine."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ssd_lab.devices import DevicePlacement

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


class SamplingParams(BaseModel):
    """How one request is sampled and when it ends.

    `temperature=0` is greedy. `top_k=0` (or more than the vocabulary has), `top_p=1` and `min_p=0` switch those filters
    off. `seed=None` takes the run's seed and the request's place in it. `logprobs=n` returns, for each token, its
    log-probability under the target (temperature 1, unfiltered) and the `n - 1` likeliest others; 0 returns none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0.0, le=10.0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="share of probability to sample from; 1 switches it off")
    top_k: int = Field(0, ge=0, description="likeliest tokens to sample from; 0 switches it off")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="least share of the likeliest token's; 0 switches it off")
    max_tokens: int = Field(128, ge=1, description="longest output in tokens")
    stop: list[str] = Field(default_factory=list, description="text that ends an output")
    stop_token_ids: list[int] = Field(default_factory=list, description="token that ends an output")
    seed: int | None = Field(None, description="None takes the run's seed and the request's place in it")
    logprobs: int = Field(0, ge=0, le=50, description="log-probabilities of so many tokens at every place; 0: none")
    ignore_eos: bool = Field(False, description="go on where the model would stop")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str]) -> list[str]:
        if any(not text for text in value):
            raise ValueError("a stop string must not be empty")
        return value


class EngineConfig(BaseModel):
    """What the engine is built with; the strategy's own knobs live in its config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    gpus: int | None = Field(
        None, ge=1, description="so many GPUs; with asynchronous drafting the last of several drafts"
    )
    placement: DevicePlacement | None = Field(
        None,
        description="devices by name: target=cuda:0,cuda:1 draft=cuda:2; each cpu is a process of its own; rank:N: the "
        "device of torchrun's process N",
    )
    dtype: DtypeName = Field(
        "auto", description="auto takes bfloat16 where the device computes in it natively, else float32"
    )
    max_batch: int = Field(16, ge=1, le=1024, description="sequences decoded together")
    max_model_len: int | None = Field(
        None, ge=2, description="longest prompt + output in tokens; None takes the model's"
    )
    block_size: int = Field(16, ge=1, le=1024, description="tokens in one KV block")
    num_blocks: int | None = Field(
        None, ge=2, description="KV blocks; None fits max_batch sequences of max_model_len, within memory"
    )
    max_prefill_tokens: int | None = Field(
        None, ge=1, description="prompt tokens computed in one step (chunked prefill); None: 2,048 on a GPU, else 512"
    )
    max_prefill_beside: int | None = Field(
        None,
        ge=1,
        description="the same before a round in which others decode; None: what delays it by at most twice its length",
    )
    prefix_reuse: bool = Field(True, description="share KV blocks of equal prefixes")
    bitwise: bool = Field(
        True, description="choose row padding so that greedy text does not depend on batch or strategy, bit for bit"
    )
    record: bool = Field(True, description="keep a trace of every round")
    record_details: int = Field(
        0, ge=0, le=64, description="keep so many likeliest tokens of either model at every place, for the views"
    )
    kernels: Literal["auto", "torch", "triton", "flashinfer"] = Field(
        "auto", description="auto takes triton on a GPU and torch on a CPU; flashinfer replaces attention only"
    )
    eager: bool = Field(False, description="run without CUDA graphs where there could be some: slower, for debugging")
    debug_memory: bool = Field(
        False,
        description="graphs poison what may no longer be read, and the order of captures changes: slow, for tests",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the target; None lets the strategy and the machine decide"
    )
    draft_link: Literal["auto", "inline", "thread", "process", "stream"] = Field(
        "auto", description="where an asynchronous draft runs"
    )
    timeout_s: float = Field(
        120.0, gt=0, description="longest wait for the draft worker before the run goes on without it"
    )
    draft_wait_s: float | None = Field(
        None,
        gt=0,
        description="longest wait of one round for its draft tokens before it goes on without any; None: as timeout_s",
    )
    restart_draft: int = Field(
        0, ge=0, le=1000, description="how often a draft process that was lost is started again (each of several)"
    )

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> Self:
        first = "auto" if self.placement is None else self.placement.target[0]
        given = {
            "device": self.device not in ("auto", first),
            "gpus": self.gpus is not None,
            "placement": self.placement is not None,
        }
        twice = [name for name, is_given in given.items() if is_given]
        if len(twice) > 1:
            raise ValueError(f"{' and '.join(twice)} all say which devices are used: give one of them")
        return self
