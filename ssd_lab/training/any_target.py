"""A target of any supported kind for training: its weights, tokenizer, and its own answers to prompts."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.errors import ConfigError, ModelLoadError, PromptError
from ssd_lab.models import config as serving
from ssd_lab.models.files.checkpoint import from_hub, read_config
from ssd_lab.models.files.weights import SafetensorsWeights, Weights
from ssd_lab.models.gguf.file import GgufFile
from ssd_lab.models.names import BUNDLED
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.training.checkpoint import fingerprint
from ssd_lab.training.config import GenerationConfig, ModelConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.model import Llama
from ssd_lab.training.own_answers import fitting_generation, own_answers

logger = logging.getLogger(__name__)

_HELD_OUT_SHARE, _HELD_OUT_MOST = 20, 100  # every twentieth prompt, at most so many, is kept to measure on


@dataclass(frozen=True)
class Target:
    """What is trained for. folder: where its tokenizer's files are (None for a .gguf file)."""

    name: str
    model: Llama
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    bos_id: int | None
    folder: Path | None

    def encode(self, prompt: str) -> list[int]:
        """A prompt as the target is asked: in its chat format if it has one."""
        if self.tokenizer.has_chat_template:
            return self.tokenizer.encode(self.tokenizer.apply_chat([{"role": "user", "content": prompt}]))
        return self.tokenizer.encode(prompt, add_special_tokens=True)


def load_target(source: str, *, device: str, dtype: torch.dtype) -> Target:
    """The bundled target, a folder, a .gguf file or a hub id. Raises ModelLoadError."""
    name = str(demo.TARGET) if source == BUNDLED else source
    path = Path(name).expanduser()
    weights: Weights
    folder: Path | None = None
    if path.suffix == ".gguf":
        file = GgufFile(path)
        shape, weights, tokenizer = file.config, file, file.tokenizer()
    else:
        folder = path if path.is_dir() else from_hub(name)
        shape, weights = read_config(folder), SafetensorsWeights(folder)
        if not (folder / "tokenizer.json").exists():
            raise ModelLoadError(f"{folder} has no tokenizer.json, without which prompts cannot be read")
        tokenizer = Tokenizer.from_folder(folder, shape.eos_token_ids)
    eos_ids = tuple(tokenizer.eos_token_ids) or shape.eos_token_ids
    if not eos_ids:
        raise ModelLoadError(f"{source} names no end token: its answers would never end")
    model = Llama(training_shape(shape))
    wanted = model.state_dict().keys()
    missing = sorted(wanted - weights.names())
    if missing:
        raise ModelLoadError(f"{source} lacks the tensor {missing[0]}: its config describes another model")
    for key, parameter in model.state_dict().items():
        parameter.copy_(weights.read(key))
    model = model.to(device, dtype).requires_grad_(False)
    model.reset_rope(device)
    return Target(source, model, tokenizer, eos_ids, shape.bos_token_id, folder)


def training_shape(shape: serving.ModelConfig, most_positions: int = 8192) -> ModelConfig:
    """The geometry that `training.model.Llama` takes, of that of a served model; training needs no longer tables."""
    return ModelConfig(
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        intermediate_size=shape.mlp_size,
        vocab_size=shape.vocab_size,
        head_dim=shape.head_dim,
        rope_theta=shape.rope_theta,
        norm_epsilon=shape.rms_eps,
        max_positions=min(shape.max_positions, most_positions),
        rope_scaling=shape.rope_scaling,
        tie_embeddings=shape.tie_embeddings,
        qk_norm=shape.qk_norm,
        attention_bias=shape.attention_bias,
    )


def read_prompt_texts(path: Path) -> list[str]:
    """Prompts of a .jsonl (objects with `prompt` or `text`, or strings) or of a text file, one a line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompts cannot be read from {path}: {error}") from error
    texts: list[str] = []
    for number, line in enumerate(lines, 1):
        record: Any = line
        if path.suffix == ".jsonl":
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise PromptError(f"{path}, line {number}: not JSON ({error})") from error
        text = (record.get("prompt") or record.get("text")) if isinstance(record, dict) else record
        if not isinstance(text, str) or not text:
            raise PromptError(f"{path}, line {number}: an object with `prompt` or `text` is wanted, or a string")
        texts.append(text)
    if not texts:
        raise PromptError(f"{path} holds no prompt")
    return texts


def held_out(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts to train on and others to measure on, always the same split of the same prompts."""
    if len(prompts) < 2:
        raise PromptError("one prompt is not enough: some are trained on, others measured on")
    every = max(_HELD_OUT_SHARE, -(-len(prompts) // _HELD_OUT_MOST)) if len(prompts) >= _HELD_OUT_SHARE else 2
    tests = list(prompts[::every])
    known = set(tests)
    return [prompt for prompt in prompts if prompt not in known], tests


def answers_of(
    target: Target,
    prompts: Sequence[str],
    generation: GenerationConfig,
    *,
    passes: int,
    budget_s: float | None,
    folder: Path,
    device: str,
    progress: bool,
) -> Corpus:
    """The target's own answers, kept in `folder`. Raises ConfigError if those there are another target's or others'."""
    path, note = folder / "answers.npz", folder / "answers.json"
    key = fingerprint(
        target=target.name,
        shape={**asdict(target.model.config), "rope_scaling": dict(target.model.config.rope_scaling or {})},
        prompts=list(prompts),
        passes=passes,
        length=[generation.max_length_tokens, generation.max_prompt_tokens, generation.max_new_tokens, generation.seed],
    )
    if path.exists() and note.exists():
        if json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            raise ConfigError(
                f"{path} holds answers to other prompts, of another target or with other settings: "
                "remove it, or take another output folder"
            )
        logger.info("answers: those in %s", path)
        return Corpus.load(path)
    corpus = own_answers(
        target.model,
        [target.encode(prompt) for prompt in prompts],
        fitting_generation(generation, target.model, device),
        eos_ids=target.eos_ids,
        passes=passes,
        budget_s=budget_s,
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    corpus.save(path)
    note.write_text(json.dumps({"key": key, "target": target.name}) + "\n", encoding="utf-8")
    return corpus
