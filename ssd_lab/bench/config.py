"""What one benchmark run is: one frozen model, from which everything that was measured can be measured again."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_lab.bench.serving.config import LoadConfig
from ssd_lab.config import DtypeName

BUNDLED = "bundled"  # as `target` or `draft`: the models that come with the package
EXAMPLE = "example"  # as a data set: the canned prompts
RANDOM = "random"  # the name under which a run of random tokens is shown
REFERENCE_NAMES = {  # the reference's flags where they have other names than the fields below
    "temp": "temperature", "dtemp": "draft_temperature", "b": "batch", "numseqs": "num_sequences",
    "block_sz": "block_size", "chat_template": "chat", "gpus": "num_gpus",
}  # fmt: skip
CELL_VERSION = 1  # raise when a default below changes its meaning: older rows of a table are then measured anew


class BenchConfig(BaseModel):
    """One cell of a benchmark: models, strategy, prompts, lengths, and how often to measure.

    The fields' defaults are those of the reference's bench.py where it has them. Names are kept as given (a hub id, not
    the folder it was found in), so that a config means the same on another machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = Field("autoregressive", description="a registered strategy")
    strategy_fields: dict[str, Any] = Field(default_factory=dict, description="the strategy's knobs, such as k and f")
    target: str = Field(BUNDLED, description="`bundled`, a hub id, a folder or a .gguf file")
    draft: str | None = Field(None, description="the same for the draft; None where the strategy needs none")

    datasets: tuple[str, ...] = Field(
        ("gsm8k",), min_length=1, description="sets, or .txt and .jsonl files of yours; each is run and reported apart"
    )
    num_sequences: int = Field(128, ge=1, description="prompts of each data set")
    prompt_offset: int = Field(0, ge=0, description="prompts of each data set to skip first")
    random: bool = Field(False, description="random token ids, `input_len` each, instead of data sets")
    chat: bool = Field(False, description="wrap each prompt in the target's chat template")
    input_len: int | None = Field(
        128, ge=1, description="longest prompt in tokens, without chat template; the rest is cut. None: nothing is"
    )
    output_len: int = Field(512, ge=1, description="tokens generated for each request")
    ignore_eos: bool = Field(True, description="generate `output_len` tokens even where the model would stop")

    batch: int = Field(1, ge=1, le=1024, description="sequences decoded together")
    temperature: float = Field(0.0, ge=0.0, le=10.0, description="0 is greedy")
    draft_temperature: float | None = Field(None, ge=0.0, le=10.0, description="None: as `temperature`")
    max_model_len: int | None = Field(
        8192, ge=2, description="longest prompt + output; never more than the model's own. None: the model's own"
    )
    block_size: int = Field(256, ge=1, le=1024, description="tokens in one KV block")

    seed: int = Field(0, description="of random prompts and of sampling; repeat i samples with seeds of its own")
    repeats: int = Field(1, ge=1, description="times that all prompts are run; intervals need at least two")
    precision: float | None = Field(
        None, gt=0, lt=1, description="repeat on until the interval's half width is this share of the mean"
    )
    max_repeats: int = Field(30, ge=1, description="where `precision` stops at the latest")
    warmup: int = Field(1, ge=0, description="short passes before the first one that counts")
    warm_up: bool = Field(True, description="on a GPU capture graphs and compile kernels before anything else")
    max_steps: int | None = Field(None, ge=1, description="end each repeat after so many engine steps")

    eager: bool = Field(False, description="without CUDA graphs")
    num_gpus: int = Field(1, ge=1, description="GPUs in all; an asynchronous draft takes the last one")
    placement: str | None = Field(
        None, description='devices by name: "target=cuda:0,cuda:1 draft=cuda:2"; each cpu is a process of its own'
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: DtypeName = Field("auto", description="auto: bfloat16 where the device computes in it, else float32")
    threads: int | None = Field(None, ge=1, description="CPU threads of the target; None: strategy and machine decide")
    draft_link: Literal["auto", "inline", "thread", "process"] = Field(
        "auto", description="where an asynchronous draft runs"
    )
    prefix_reuse: bool = Field(False, description="off, because a repeat would find its prompts computed already")
    bitwise: bool = Field(True, description="greedy text that does not depend on batch or strategy, bit for bit")
    record: bool = Field(True, description="keep a trace of every round")

    peers: tuple[str, ...] = Field((), description="other programs to run on the same weights, prompts and lengths")
    quality: bool = Field(False, description="score the answers of data sets that have a right one")
    unguarded: bool = Field(False, description="run a model's programs also where no sandbox works")
    load: LoadConfig | None = Field(None, description="a load on a server, which has its own models and strategy")

    @model_validator(mode="after")
    def _each_dataset_once(self) -> BenchConfig:
        twice = sorted({name for name in self.datasets if self.datasets.count(name) > 1})
        if twice:
            raise ValueError(f"data sets {', '.join(twice)} are named twice: name each once")
        if self.random and self.input_len is None:
            raise ValueError("random prompts need a length: give input_len")
        if self.placement is not None and self.num_gpus > 1:
            raise ValueError("num_gpus and placement both say which devices are used: give one of them")
        if self.precision is not None and self.max_repeats < max(2, self.repeats):
            raise ValueError(
                f"max_repeats={self.max_repeats} leaves no room for precision={self.precision}: raise it above "
                f"repeats={self.repeats}"
            )
        return self

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """What the run's parts are called: its data sets, or `random`."""
        return (RANDOM,) if self.random else self.datasets

    @property
    def label(self) -> str:
        """A short name for tables: the strategy and the knobs that were given, or the server that was asked."""
        if self.load is not None:
            return self.load.label
        knobs = ", ".join(f"{name}={_short(value)}" for name, value in self.strategy_fields.items())
        return f"{self.strategy} ({knobs})" if knobs else self.strategy

    @property
    def others(self) -> str:
        """What else was asked for, models and data sets apart: fields that are not at their defaults."""
        shown = {"strategy", "strategy_fields", "target", "draft", "datasets", "load"}
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude=shown)
        return ", ".join(f"{name}={_short(value)}" for name, value in fields.items())


def is_prompt_file(dataset: str) -> bool:
    """Is this data set a file of the user's?"""
    return dataset.endswith((".txt", ".jsonl"))


def cell_key(config: BenchConfig) -> str:
    """A stable hash of the config: equal for equal configs, on any machine and in any session.

    Fields at their defaults are left out, so that a new field does not make old cells unknown.
    """
    fields = config.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps([CELL_VERSION, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(str(part).replace(" ", "") for part in value.values() if part is not None)
    return str(value)
