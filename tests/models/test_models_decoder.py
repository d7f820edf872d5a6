"""The decoder gives the logits that transformers gives, however the tokens reach it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.phases.prefill import prefill
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

BLOCK = 8
TABLE = [7, 2, 11, 5, 3, 9, 1, 12, 4, 6, 8, 10, 13, 14, 15, 16]  # blocks in no order


def runner(model: LoadedModel) -> StepRunner:
    return StepRunner(model.decoder, PagedKVCache(model.config, 40, BLOCK, model.dtype, "cpu"), torch.device("cpu"))


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 320, (count,), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def logits_in_chunks(model: LoadedModel, ids: torch.Tensor, chunk: int) -> torch.Tensor:
    own, parts = runner(model), []
    for start in range(0, len(ids), chunk):
        piece = ids[start : start + chunk].unsqueeze(0)
        parts.append(own.logits(causal_step_at(piece, [start], [TABLE], BLOCK))[0])
    return torch.cat(parts)


@pytest.fixture(scope="session")
def expected(checkpoint: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and transformers' logits for them."""
    from transformers import AutoModelForCausalLM

    ids = tokens(100)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        return ids, reference(ids.unsqueeze(0)).logits[0]


@pytest.mark.parametrize("chunk", [100, 33, 7, 1])
def test_logits_match_transformers(checkpoint: Path, expected: tuple[torch.Tensor, torch.Tensor], chunk: int) -> None:
    ids, reference = expected
    ours = logits_in_chunks(load_model(checkpoint, dtype="float32"), ids, chunk)
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


def test_sequences_of_different_lengths_do_not_disturb_each_other(
    checkpoint: Path, expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, reference = expected
    model = load_model(checkpoint, dtype="float32")
    own = runner(model)
    tables = [TABLE[:8], [20, 21, 22, 23, 24]]
    with torch.inference_mode():
        prefill(own, [PromptPart(ids[:50].tolist(), 0, tables[0])])
        prefill(own, [PromptPart(tokens(20, seed=5).tolist(), 0, tables[1])])
        both = torch.stack([ids[50:54], tokens(4, seed=6)])
        logits = own.logits(causal_step_at(both, [50, 20], tables, BLOCK))
    torch.testing.assert_close(logits[0], reference[50:54], atol=1e-4, rtol=0)


def test_a_tree_branch_sees_its_prefix_and_ancestors_only(
    checkpoint: Path, expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Branches of two tokens each after prefixes of 30 and 27 tokens give the logits of plain texts."""
    ids, _ = expected
    model = load_model(checkpoint, dtype="float32")
    own = runner(model)
    branch_tokens, prefixes = torch.tensor([[11, 12], [21, 22], [31, 32]]), [30, 27, 30]
    scratch = torch.arange(64, 70).view(2, 3).T  # [branch, step], behind the eight blocks of the text
    with torch.inference_mode():
        prefill(own, [PromptPart(ids[:30].tolist(), 0, TABLE[:8])])
        table = torch.tensor([TABLE])
        for step in range(2):
            result = own.logits(
                StepInput(
                    token_ids=branch_tokens[:, step].unsqueeze(0),
                    positions=(torch.tensor(prefixes) + step).unsqueeze(0),
                    write_slots=torch.tensor(TABLE)[scratch[:, step] // BLOCK]
                    .mul(BLOCK)
                    .add(scratch[:, step] % BLOCK)[None],
                    block_tables=table,
                    prefix_lengths=torch.tensor(prefixes).unsqueeze(0),
                    context_length=70,
                    ancestors=scratch[:, : step + 1].unsqueeze(0),
                )
            )[0]
    for branch, prefix in enumerate(prefixes):
        text = torch.cat([ids[:prefix], branch_tokens[branch]])
        torch.testing.assert_close(result[branch], logits_in_chunks(model, text, 64)[-1], atol=1e-4, rtol=0)


@pytest.mark.quick("qwen3-bfloat16")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_rows_batch_or_threads(checkpoint: Path, dtype: str) -> None:
    model = load_model(checkpoint, dtype=dtype)
    assert model.decoder.row_padding.invariant
    ids = tokens(70)
    one_by_one = logits_in_chunks(model, ids, 1)
    for chunk in (2, 3, 7, 21, 70):
        assert torch.equal(logits_in_chunks(model, ids, chunk), one_by_one), f"{chunk} rows at a time"
    batched, tables = runner(model), [TABLE[:9], *([17 + 5 * i + j for j in range(5)] for i in range(3))]
    with torch.inference_mode():  # the same rows beside three other sequences, over a longer and over a shorter context
        prefill(batched, [PromptPart(ids[:60].tolist(), 0, tables[0])])
        for sequence in (1, 2, 3):
            prefill(batched, [PromptPart(tokens(20, seed=sequence).tolist(), 0, tables[sequence])])
        rows = torch.stack([ids[60:67], *(tokens(7, seed=9 + i) for i in range(3))])
        step = causal_step_at(rows, [60, 20, 20, 20], tables, BLOCK)
        assert torch.equal(batched.logits(step)[0], one_by_one[60:67])
    torch.set_num_threads(2)
    assert torch.equal(logits_in_chunks(model, ids, 7), one_by_one)


def test_a_product_over_many_inputs_needs_padding_and_gets_it() -> None:
    """oneDNN sums a single row of over 1,024 inputs in another order: the probe must notice or the sums must agree."""
    from ssd_lab.kernels.linear import Linear
    from ssd_lab.kernels.row_probe import probe_row_padding

    weight = torch.randn(512, 1536, generator=torch.Generator().manual_seed(0)) * 0.02
    for dtype in (torch.float32, torch.bfloat16):
        linear = Linear(weight.to(dtype))
        padding = probe_row_padding(linear)
        inputs = torch.randn(200, 1536, generator=torch.Generator().manual_seed(1)).to(dtype)
        linear.padding = padding
        together = torch.cat([linear(piece) for piece in inputs.split(100)])  # as many as the probe vouches for
        for index in range(200):
            assert torch.equal(linear(inputs[index : index + 1])[0], together[index])


def test_features_are_the_residual_stream_at_a_layers_input(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = tokens(12)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model = load_model(checkpoint, dtype="float32")
    features: dict[int, torch.Tensor] = {0: torch.empty(0), 2: torch.empty(0)}
    with torch.inference_mode():
        hidden = reference(ids.unsqueeze(0), output_hidden_states=True).hidden_states
        own = runner(model)
        step = causal_step_at(ids.unsqueeze(0), [0], [TABLE], BLOCK)
        model.decoder.forward(step, own.cache, features=features)
    for layer in (0, 2):
        torch.testing.assert_close(features[layer], hidden[layer], atol=1e-4, rtol=0)
