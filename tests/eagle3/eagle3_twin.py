"""Draft tokens of an EAGLE3 head computed anew for each draft: no batch, no blocks, nothing kept between rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import RunResult
from ssd_lab.trace.records import SequenceRound

BLOCK = 16
NEAR = 1e-3  # logits closer than this may change places: the twin sums in another order


class Twin:
    """What the head would say at each place of a text, by its definition."""

    def __init__(self, target: LoadedModel, head: Eagle3Head) -> None:
        self._target, self._head = target, head

    @torch.inference_mode()
    def features(self, text: Sequence[int]) -> torch.Tensor:
        """The target's features of every token `[1, tokens, feature_size]`."""
        layers = self._head.config.feature_layers
        tokens = torch.tensor([list(text)])
        read = dict.fromkeys(layers, torch.empty(0))
        cache = _cache(self._target.config, len(text))
        self._target.decoder.forward(_step(tokens, 0), cache, features=read)
        return torch.cat([read[layer] for layer in layers], -1)

    @torch.inference_mode()
    def logits(self, text: Sequence[int], known: int, drafted: Sequence[int]) -> torch.Tensor:
        """The head's logits over the target's ids `[len(drafted), vocab]` before each drafted token, where the target
        has told the features of the first `known` tokens and the head goes on by itself from there.
        """
        head, every = self._head, [*text, *drafted]
        cache = _cache(head.config.layers, len(every))
        features = head.combine(self.features(text[:known]))
        following = torch.tensor([every[1 : known + 1]])
        out, carried = head.forward(_step(following, 0), cache, features)
        results, carried = [out[:, -1]], carried[:, -1:]
        for row in range(known, len(every) - 2):
            out, carried = head.forward(_step(torch.tensor([[every[row + 1]]]), row), cache, carried)
            results.append(out[:, -1])
        return head.vocabulary.scatter_logits(torch.stack(results, 1))[0, -len(drafted) :]

    def check(
        self, result: RunResult, temperature: float, *, probs: bool = True, drawn: bool = False
    ) -> dict[str, int]:
        """Compare every recorded draft with its twin, and its probabilities too unless told not to; returns how many
        of each origin there were. drawn: nodes of trees were drawn at the temperature.
        """
        counts: dict[str, int] = {}
        for output, rows in zip(result.outputs, _by_request(result), strict=True):
            whole = [*output.prompt_ids, *output.token_ids]
            for before, row in zip([None, *rows], rows, strict=False):
                counts[row.origin] = counts.get(row.origin, 0) + 1
                if row.origin in ("draft", "jit"):
                    self._check_row(whole[: row.position], row.position - 1, row, temperature, probs)
                elif row.origin == "hit":
                    assert before is not None  # prepared when only the features before the last round were known
                    self._check_row(whole[: row.position], before.position - 1, row, temperature, probs)
                elif row.origin == "tree":
                    self._check_tree(whole[: row.position], row, temperature if drawn else 0.0, probs)
        return counts

    def _check_tree(self, text: list[int], row: SequenceRound, temperature: float, probs: bool) -> None:
        """Every node: certain guesses are the likeliest tokens after their path, in the order of the siblings."""
        assert row.tree is not None
        tokens, parents = row.tree.tokens, row.tree.parents
        for leaf in set(range(len(tokens))) - set(parents):
            path = [leaf]
            while parents[path[0]] >= 0:
                path.insert(0, parents[path[0]])
            logits = self.logits(text, row.position - 1, [tokens[node] for node in path])
            for own, node in zip(logits, path, strict=True):
                if temperature == 0:
                    rank = sum(parent == parents[node] for parent in parents[:node])
                    assert float(own[tokens[node]]) == pytest.approx(float(own.topk(rank + 1).values[-1]), abs=NEAR)
                if probs:
                    expected = torch.softmax(own / (temperature or 1.0), -1)[tokens[node]]
                    assert row.tree.draft_probs[node] == pytest.approx(float(expected), abs=NEAR)

    def _check_row(self, text: list[int], known: int, row: SequenceRound, temperature: float, probs: bool) -> None:
        logits = self.logits(text, known, row.draft_tokens)
        drafted = torch.tensor(row.draft_tokens)[:, None]
        if temperature == 0:
            assert (logits.gather(1, drafted)[:, 0] >= logits.amax(-1) - NEAR).all()
        if probs:
            expected = torch.softmax(logits / (temperature or 1.0), -1).gather(1, drafted)[:, 0]
            torch.testing.assert_close(torch.tensor(row.draft_probs), expected, atol=NEAR, rtol=0)


def _by_request(result: RunResult) -> list[list[SequenceRound]]:
    rows = [row for round_record in result.trace.rounds for row in round_record.sequences]
    return [[row for row in rows if row.request_id == output.request_id] for output in result.outputs]


def _cache(shape: object, tokens: int) -> PagedKVCache:
    return PagedKVCache(shape, 2 + tokens // BLOCK, BLOCK, torch.float32, "cpu")  # type: ignore[arg-type]


def _step(token_ids: torch.Tensor, start: int) -> StepInput:
    stop = start + token_ids.shape[1]
    positions = torch.arange(start, stop)[None]
    tables = torch.arange(1, 2 + stop // BLOCK)[None]
    return StepInput(token_ids, positions, positions + BLOCK, tables, positions + 1, stop)
