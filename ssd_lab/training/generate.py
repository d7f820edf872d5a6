"""Answer many prompts at once: a fixed set of rows, a static KV cache, one CUDA graph, finished rows replaced."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ssd_lab.training.config import GenerationConfig
from ssd_lab.training.decode_ops import decode_attention, sample_tokens
from ssd_lab.training.model import Llama

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One prompt to be answered once."""

    index: int  # the caller's number for it
    tokens: list[int]
    temperature: float


@dataclass(frozen=True)
class Answer:
    """What came back for a request; `finished` is False where the token limit cut it."""

    index: int
    temperature: float
    tokens: NDArray[np.int32]  # without the end token
    finished: bool
    end_id: int | None = None  # the end token, where it came


class BulkGenerator:
    """Decodes `rows` sequences together and refills a row as soon as its answer ends."""

    def __init__(self, model: Llama, config: GenerationConfig, *, eos_id: int | Sequence[int]) -> None:
        self.model, self.config = model, config
        self.device = model.cos.device
        self.eos_ids = frozenset([eos_id] if isinstance(eos_id, int) else eos_id)
        self.ends = torch.tensor(sorted(self.eos_ids), dtype=torch.long, device=self.device)
        geometry, rows, length = model.config, config.rows, config.max_length_tokens
        dtype = model.model.embed_tokens.weight.dtype
        shape = (geometry.num_layers, rows, geometry.num_kv_heads, length, geometry.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=self.device)
        self.values = torch.zeros(shape, dtype=dtype, device=self.device)
        self.row_ids = torch.arange(rows, device=self.device)
        self.last_token = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.length = torch.zeros(rows, dtype=torch.int32, device=self.device)  # cached tokens of each row
        self.num_new = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.limit = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.done = torch.ones(rows, dtype=torch.bool, device=self.device)
        self.temperature = torch.zeros(rows, dtype=torch.float32, device=self.device)
        self.answers = torch.zeros(rows, config.max_new_tokens + 1, dtype=torch.int32, device=self.device)
        self.step_number = torch.full((1,), config.seed * 1_000_003, dtype=torch.int64, device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.row_request: list[Request | None] = [None] * rows

    @torch.no_grad()
    def step(self) -> None:
        """One token for every row; rows that are done stand still."""
        model, scale = self.model, self.model.config.head_dim**-0.5
        positions = self.length.long()
        x = model.model.embed_tokens(self.last_token)  # [rows, hidden]
        cos, sin = model.cos[positions], model.sin[positions]
        for i, layer in enumerate(model.model.layers):
            query, key, value = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
            self.keys[i][self.row_ids, :, positions] = key
            self.values[i][self.row_ids, :, positions] = value
            attended = decode_attention(query, self.keys[i], self.values[i], self.length, scale)
            x = x + layer.self_attn.o_proj(attended.flatten(1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        logits = model.logits(model.model.norm(x))  # [rows, vocab]
        token = sample_tokens(logits, self.temperature, self.config.min_p, self.step_number)
        self.step_number += 1
        running = ~self.done
        slot = torch.where(running, self.num_new, self.config.max_new_tokens)  # a done row writes to the spare column
        self.answers[self.row_ids, slot] = token.int()
        self.num_new += running
        self.length += running
        self.last_token.copy_(torch.where(running, token, self.last_token))
        self.done |= (token[:, None] == self.ends).any(-1) | (self.num_new >= self.limit)

    def capture(self) -> None:
        """Record one step as a CUDA graph; on a CPU the step runs as it is."""
        if self.device.type != "cuda":
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()

    @torch.no_grad()
    def fill(self, rows: list[int], requests: list[Request]) -> None:
        """Put new prompts into free rows: cache all but their last token, which the next step feeds."""
        prompts = [request.tokens[:-1] for request in requests]
        lengths = torch.tensor([len(p) for p in prompts], dtype=torch.int32)
        starts = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)).to(self.device)
        flat = torch.tensor([t for p in prompts for t in p], dtype=torch.long).to(self.device)
        row = torch.repeat_interleave(torch.tensor(rows), lengths).to(self.device)
        position = torch.cat([torch.arange(int(n)) for n in lengths]).to(self.device)
        kept: list[tuple[Tensor, Tensor]] = []
        self.model.hidden(flat, position, starts, int(lengths.max()), kept)
        for i, (key, value) in enumerate(kept):
            self.keys[i][row, :, position] = key
            self.values[i][row, :, position] = value
        where = torch.tensor(rows, device=self.device)
        room = [self.config.max_length_tokens - len(request.tokens) for request in requests]
        limits = [min(self.config.max_new_tokens, max(1, r)) for r in room]
        self.last_token[where] = torch.tensor([request.tokens[-1] for request in requests], device=self.device)
        self.length[where] = lengths.to(self.device)
        self.num_new[where] = 0
        self.limit[where] = torch.tensor(limits, device=self.device)
        self.temperature[where] = torch.tensor([r.temperature for r in requests], device=self.device)
        self.done[where] = False
        for index, request in zip(rows, requests, strict=True):
            self.row_request[index] = request

    def harvest(self) -> list[Answer]:
        """Take the finished answers out of their rows."""
        done = self.done.tolist()
        rows = [i for i, finished in enumerate(done) if finished and self.row_request[i] is not None]
        if not rows:
            return []
        where = torch.tensor(rows, device=self.device)
        tokens, counts = self.answers[where].cpu().numpy(), self.num_new[where].tolist()
        answers = []
        for row, line, count in zip(rows, tokens, counts, strict=True):
            request = self.row_request[row]
            assert request is not None
            last = int(line[count - 1])
            ended = last in self.eos_ids
            kept = line[: count - 1] if ended else line[:count]
            end_id = last if ended else None
            answers.append(Answer(request.index, request.temperature, kept.copy(), ended, end_id))
            self.row_request[row] = None
        return answers

    def run(self, requests: Iterator[Request], *, budget_s: float | None = None) -> Iterator[list[Answer]]:
        """Yield batches of answers until the requests or the time run out; answers under way then are dropped."""
        started = time.monotonic()
        queue: deque[Request] = deque()
        exhausted, captured = False, False
        while True:
            free = [i for i, request in enumerate(self.row_request) if request is None]
            while len(queue) < len(free) and not exhausted:
                request = next(requests, None)
                if request is None:
                    exhausted = True
                else:
                    queue.append(request)
            for begin in range(0, min(len(free), len(queue)), 512):  # bounds the prefill's memory
                rows = free[begin : begin + min(512, len(queue))]
                if rows:
                    self.fill(rows, [queue.popleft() for _ in rows])
            if all(request is None for request in self.row_request):
                return
            if not captured:
                self.capture()  # its warm-up steps are ordinary steps of the filled rows
                captured = True
            for _ in range(self.config.steps_per_harvest):
                self.graph.replay() if self.graph is not None else self.step()
            answers = self.harvest()
            if answers:
                yield answers
            if budget_s is not None and time.monotonic() - started > budget_s:
                return
