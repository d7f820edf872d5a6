"""Models for training, from and to checkpoint folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from ssd_lab.common.places import write_whole
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.files.config_json import config_to_json
from ssd_lab.models.files.weights import TensorReader
from ssd_lab.training.model import TrainableLlama

MOST_POSITIONS = 8192  # training reads no longer texts, so rotary tables need not be longer


def load_hf(source: str | Path, *, device: torch.device | str, dtype: torch.dtype) -> TrainableLlama:
    """The model of a folder, a .gguf file or a hub id, without gradients. Raises ModelLoadError."""
    checkpoint = open_checkpoint(source)
    shape = replace(checkpoint.config, max_positions=min(checkpoint.config.max_positions, MOST_POSITIONS))
    reader = TensorReader(checkpoint.weights, dtype, torch.device(device), str(source))
    with torch.device("meta"):  # no memory and no time for weights that are replaced at once
        model = TrainableLlama(shape)
    weights = {name: reader.take(name, *tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    model.reset_rope(device)
    return model.requires_grad_(False)


def save_hf(model: TrainableLlama, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors (bfloat16), as `load_hf` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config_to_json(model.config, dtype="bfloat16")
    bos, eos = values["bos_token_id"], values["eos_token_id"]
    generation = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": bos}
    for name, document in (("config", values), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    weights = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in model.state_dict().items()
    }
    save_weights(weights, folder / "model.safetensors", folder / "config.json")


def save_weights(weights: dict[str, torch.Tensor], path: Path, beside: Path) -> None:
    """Write them whole, or not at all; as readable as the file beside them, not for their owner alone."""

    def write(unfinished: Path) -> None:
        save_file(weights, unfinished, metadata={"format": "pt"})
        shutil.copymode(beside, unfinished)

    write_whole(path, write)
