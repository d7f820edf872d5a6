"""Train a model on a corpus: next-token prediction on packed conversations."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ssd_lab.training.config import ModelConfig, TrainConfig
from ssd_lab.training.corpus import Corpus, Microbatch, microbatches
from ssd_lab.training.model import Llama
from ssd_lab.training.optimiser import Optimiser, Schedule

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
LOOK_S = 0.2  # how often both sides look whether the other is still there


def prefetched(items: Iterator[Item], depth: int = 6) -> Iterator[Item]:
    """The same items, made ahead by a thread, which ends when this iterator is dropped; raises what making them did."""
    ready: queue.Queue[Item] = queue.Queue(depth)
    stopped, failures = threading.Event(), []

    def work() -> None:
        try:
            for item in items:
                while not stopped.is_set():
                    try:
                        ready.put(item, timeout=LOOK_S)
                        break
                    except queue.Full:
                        continue
                if stopped.is_set():
                    return
        except BaseException as error:  # whoever waits for the next item must hear of it
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_last = not thread.is_alive()
            try:
                item = ready.get(timeout=LOOK_S)
            except queue.Empty:
                if is_last:
                    break
                continue
            yield item
        if failures:
            raise failures[0]
    finally:
        stopped.set()


def new_model(config: ModelConfig, *, seed: int, device: torch.device | str) -> Llama:
    """A freshly initialised model with float32 weights, computing in bfloat16 on a GPU."""
    model = Llama(config)
    model.initialise(torch.Generator().manual_seed(seed))
    model = model.to(device)
    model.reset_rope(device)
    if str(device).startswith("cuda"):
        model.compute_dtype = torch.bfloat16
    return model


def next_token_loss(model: Llama, batch: Microbatch, max_length: int) -> Tensor:
    """Weighted mean cross-entropy over the labelled positions."""
    hidden = model.hidden(batch.tokens, batch.positions, batch.starts, max_length)
    losses = F.cross_entropy(model.logits(hidden).float(), batch.labels, ignore_index=-100, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def maybe_compiled(
    function: Callable[..., Any], *, config: TrainConfig, device: torch.device | str
) -> Callable[..., Any]:
    """torch.compile on a GPU, where it pays for itself within a minute."""
    if not (config.compile and str(device).startswith("cuda")):
        return function
    return torch.compile(function, dynamic=False)


def train_target(
    corpus: Corpus,
    geometry: ModelConfig,
    config: TrainConfig,
    *,
    device: torch.device | str,
    log_path: Path | None = None,
    held_out: Corpus | None = None,
    progress: bool = True,
) -> Llama:
    """Train from scratch until the budget is spent; the loss curve goes to `log_path` as JSON lines."""
    model = new_model(geometry, seed=config.seed, device=device)
    optimiser, schedule = Optimiser.of_llama(model, config), Schedule(config, corpus_tokens=corpus.num_tokens)
    loss_of = maybe_compiled(next_token_loss, config=config, device=device)
    batches = prefetched(
        microbatches(
            corpus,
            size_tokens=config.tokens_per_microbatch,
            prompt_weight=config.prompt_loss_weight,
            seed=config.seed,
            device=device,
        )
    )
    records: list[dict[str, float]] = []
    with tqdm(total=1000, desc="target", disable=not progress, mininterval=10) as bar:
        while schedule.progress < 1:
            total = torch.zeros((), device=device)
            for _ in range(config.microbatches_per_step):
                loss = loss_of(model, next(batches), config.max_length_tokens)
                (loss / config.microbatches_per_step).backward()
                total += loss.detach()
            optimiser.step(schedule.advance())
            if schedule.step_number % 50 == 1 or schedule.progress >= 1:
                records.append({**schedule.record(), "loss": float(total) / config.microbatches_per_step})
                bar.update(int(1000 * schedule.progress) - bar.n)
                bar.set_postfix(loss=records[-1]["loss"], epochs=schedule.epochs)
                write_log(log_path, records)
    if held_out is not None and held_out.num_documents:
        records.append({"held_out_loss": held_out_loss(model, held_out, config, device=device)})
    write_log(log_path, records)
    return model


@torch.no_grad()
def held_out_loss(model: Llama, corpus: Corpus, config: TrainConfig, *, device: torch.device | str) -> float:
    """Mean loss of the answers' tokens of a corpus that was not trained on."""
    batches = microbatches(corpus, size_tokens=config.tokens_per_microbatch, prompt_weight=0.0, seed=0, device=device)
    count = max(1, corpus.num_tokens // config.tokens_per_microbatch)
    losses = [float(next_token_loss(model, next(batches), config.max_length_tokens)) for _ in range(count)]
    return sum(losses) / len(losses)


def write_log(path: Path | None, records: list[dict[str, float]]) -> None:
    """Rewrite a loss curve, one JSON object a line."""
    if path is not None:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
