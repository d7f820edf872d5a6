"""EAGLE3 heads from disk, in the layouts of SafeAILab, SpecForge and the speculators library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.errors import DraftMismatchError, ModelLoadError
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.row_padding import ANY_ROWS, RowPadding
from ssd_lab.kernels.row_probe import make_row_invariant
from ssd_lab.models.blocks import Block, Parts, read_attention, read_mlp
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.eagle3.head import Eagle3Head, Eagle3Weights
from ssd_lab.models.eagle3.vocabulary import DraftVocabulary
from ssd_lab.models.files.hub import HUB_FILES, from_hub
from ssd_lab.models.files.json_file import read_json
from ssd_lab.models.files.weights import INDEX, SINGLE, MappingWeights, SafetensorsWeights, TensorReader, Weights
from ssd_lab.models.loader import LoadedModel

PICKLED = "pytorch_model.bin"  # how the first heads were published
_IGNORED = (  # tables of old checkpoints, and the target's own weights that some training code saves along
    "rotary_emb.inv_freq",
    "verifier_lm_head.weight",
    "verifier_norm.weight",
    "t2d",
    "d2t",
)


def load_eagle3(source: str | Path, target: LoadedModel, *, bitwise: bool = True) -> Eagle3Head:
    """A head from a folder or hub id, for this target, in its dtype and on its device.

    What the checkpoint lacks is the target's: the embedding, and the output head where the vocabularies are equal.
    Raises ModelLoadError that says what is missing or wrong, DraftMismatchError for a head of another target.
    """
    folder = _folder(source)
    config = Eagle3Config.from_hf(_read_config(folder), target.config)
    with current(target.decoder.device):
        return assemble_eagle3(config, _read_weights(folder), target, source=str(source), bitwise=bitwise)


def read_eagle3_config(source: str | Path, target: ModelConfig) -> Eagle3Config:
    """The shape of a head, without its weights; errors as `load_eagle3`."""
    return Eagle3Config.from_hf(_read_config(_folder(source)), target)


def _folder(source: str | Path) -> Path:
    path = Path(source).expanduser()
    return path if path.is_dir() else from_hub(str(source), [*HUB_FILES, PICKLED], others=())


def assemble_eagle3(
    config: Eagle3Config, weights: Weights, target: LoadedModel, *, source: str, bitwise: bool = True
) -> Eagle3Head:
    """A head of this shape from named tensors. bitwise: as for a decoder, see `assemble`."""
    device, names = target.decoder.device, weights.names()
    prefix = _layer_prefix(names, source)
    first = prefix.format(0)
    layers = replace(
        config.layers,
        qk_norm=f"{first}self_attn.q_norm.weight" in names,
        attention_bias=f"{first}self_attn.q_proj.bias" in names,
    )
    config = replace(config, layers=layers)
    parts = Parts(layers, TensorReader(weights, target.dtype, device, source), target.decoder.kernels)
    combine = parts.tensors.take("fc.weight", layers.hidden_size, config.feature_size)
    vocabulary = _vocabulary(config, weights, device, source)
    head = Eagle3Head(
        config,
        Eagle3Weights(
            embedding=_embedding(config, parts, target),
            feature_norms=_feature_norms(config, parts),
            combine=parts.linear(combine),
            hidden_norm=parts.norm(f"{first}hidden_norm", layers.hidden_size),
            blocks=[_block(parts, prefix.format(i), is_first=i == 0) for i in range(layers.num_layers)],
            final_norm=parts.norm("norm", layers.hidden_size),
            head=_output(config, parts, target, vocabulary),
        ),
        vocabulary,
        RowPadding(),
        target.decoder.kernels,
        target.decoder.num_tokens,
    )
    parts.tensors.check_all_used(_IGNORED)
    head.row_padding = make_row_invariant(head.linears()) if bitwise else ANY_ROWS
    return head


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        raise ModelLoadError(f"{folder} has no config.json: give the folder or hub id of an EAGLE3 head")
    return read_json(folder / "config.json")


def _read_weights(folder: Path) -> Weights:
    if (folder / SINGLE).exists() or (folder / INDEX).exists() or not (folder / PICKLED).exists():
        return SafetensorsWeights(folder)
    file = folder / PICKLED
    try:
        return MappingWeights(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged archive raises whatever its reader stumbles over
        raise ModelLoadError(f"weight file {file} is truncated or damaged ({error}): download it again") from error


def _layer_prefix(names: set[str], source: str) -> str:
    """How layers are called: `midlayer.` (SafeAILab, SpecForge; there is one) or `layers.0.` (speculators)."""
    if "midlayer.hidden_norm.weight" in names:
        return "midlayer."
    if "layers.0.hidden_norm.weight" in names:
        return "layers.{}."
    raise ModelLoadError(
        f"{source} has neither midlayer.hidden_norm.weight nor layers.0.hidden_norm.weight: it is no EAGLE3 head"
    )


def _vocabulary(config: Eagle3Config, weights: Weights, device: torch.device, source: str) -> DraftVocabulary:
    names = weights.names()
    target_size = config.layers.vocab_size
    if "d2t" not in names:
        if config.draft_vocab_size != target_size:
            raise ModelLoadError(
                f"{source} drafts {config.draft_vocab_size} of {target_size} tokens and lacks the tensor d2t, "
                "which says which ones"
            )
        return DraftVocabulary(None, target_size)
    offsets = weights.read("d2t").to(device)
    if tuple(offsets.shape) != (config.draft_vocab_size,):
        raise ModelLoadError(
            f"{source}: tensor d2t has shape {list(offsets.shape)}, and the config asks for {[config.draft_vocab_size]}"
        )
    known = weights.read("t2d").to(device) if "t2d" in names else None
    return DraftVocabulary.from_offsets(offsets, target_size, known, source=source)


def _embedding(config: Eagle3Config, parts: Parts, target: LoadedModel) -> torch.Tensor:
    if "embed_tokens.weight" in parts.tensors:
        return parts.tensors.take("embed_tokens.weight", config.layers.vocab_size, config.layers.hidden_size)
    if config.layers.hidden_size != target.config.hidden_size:
        raise DraftMismatchError(
            f"{parts.tensors.source} has no embedding of its own, and the target's is {target.config.hidden_size} "
            f"wide, not {config.layers.hidden_size}"
        )
    return target.decoder.embedding


def _output(config: Eagle3Config, parts: Parts, target: LoadedModel, vocabulary: DraftVocabulary) -> Linear:
    hidden = config.layers.hidden_size
    if "lm_head.weight" in parts.tensors:
        return parts.linear(parts.tensors.take("lm_head.weight", config.draft_vocab_size, hidden))
    if not vocabulary.is_whole or hidden != target.config.hidden_size:
        raise ModelLoadError(
            f"{parts.tensors.source} lacks the tensor lm_head.weight, and only a head with the target's whole "
            "vocabulary and its hidden size can use the target's"
        )
    if target.decoder.group is None:
        return target.decoder.output_head
    if not target.config.tie_embeddings:  # a rank holds its own part of the head, and the embedding whole
        raise ModelLoadError(
            f"{parts.tensors.source} lacks the tensor lm_head.weight, and the target's is divided among "
            f"{target.decoder.group.size} ranks: give the head one of its own, or the target one device"
        )
    return parts.linear(target.decoder.embedding)


def _feature_norms(config: Eagle3Config, parts: Parts) -> list[RmsNorm]:
    if config.norm_before_fc and config.fc_norm:
        raise ModelLoadError("norm_before_fc and fc_norm exclude each other, and this head's config sets both")
    if config.norm_before_fc:
        return [parts.norm("input_norm", config.feature_size)]
    if config.fc_norm:
        return [parts.norm(f"fc_norm.{i}", config.target_hidden_size) for i in range(len(config.feature_layers))]
    return []


def _block(parts: Parts, prefix: str, *, is_first: bool) -> Block:
    """As a decoder's, but that the first one reads token and feature side by side."""
    hidden = parts.config.hidden_size
    has_bias = f"{prefix}self_attn.o_proj.bias" in parts.tensors
    return Block(
        input_norm=parts.norm(f"{prefix}input_layernorm", hidden),
        attention=read_attention(parts, prefix, 2 * hidden if is_first else hidden, output_bias=has_bias),
        mlp_norm=parts.norm(f"{prefix}post_attention_layernorm", hidden),
        mlp=read_mlp(parts, f"{prefix}mlp"),
    )
