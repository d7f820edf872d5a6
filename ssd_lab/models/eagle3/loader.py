"""EAGLE3 heads from disk, in the layouts of SafeAILab, SpecForge and the speculators library."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.errors import DraftMismatchError, ModelLoadError
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.row_probe import make_row_invariant
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import LayerWeights
from ssd_lab.models.draft_vocabulary import DraftVocabulary
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.eagle3.head import Eagle3Head, Eagle3Weights
from ssd_lab.models.files.hub import HUB_FILES, from_hub
from ssd_lab.models.files.weights import INDEX, SINGLE, MappingWeights, SafetensorsWeights, TensorReader, Weights
from ssd_lab.models.loader import LoadedModel

MakeLinear = Callable[..., Linear]
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
    with current(target.decoder.embedding.device):
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
    device = target.decoder.embedding.device
    reader = TensorReader(weights, target.dtype, device, source)
    names = weights.names()
    prefix = _layer_prefix(names, source)
    layers = config.layers
    first = prefix.format(0)
    config = replace(
        config,
        layers=replace(
            layers,
            qk_norm=f"{first}self_attn.q_norm.weight" in names,
            attention_bias=f"{first}self_attn.q_proj.bias" in names,
        ),
    )
    hidden, eps = layers.hidden_size, layers.rms_eps

    def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return Linear(weight, bias, few_rows=target.decoder.kernels.few_rows(weight, bias))

    vocabulary = _vocabulary(config, weights, device, source)
    head = Eagle3Head(
        config,
        Eagle3Weights(
            embedding=_embedding(config, reader, target, source),
            feature_norms=_feature_norms(config, reader),
            combine=linear(reader.take("fc.weight", hidden, config.feature_size)),
            hidden_norm=RmsNorm(reader.take(f"{first}hidden_norm.weight", hidden), eps),
            layers=[_layer(reader, config, prefix.format(i), i == 0, linear) for i in range(layers.num_layers)],
            final_norm=RmsNorm(reader.take("norm.weight", hidden), eps),
            head=_output(config, reader, target, vocabulary, source, linear),
        ),
        vocabulary,
        RowPadding(),
        target.decoder.kernels,
        target.decoder.num_tokens,
    )
    reader.check_all_used(_IGNORED)
    if bitwise:
        head.row_padding = make_row_invariant(head.linears())
    return head


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelLoadError(f"{folder} has no config.json: give the folder or hub id of an EAGLE3 head") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error


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


def _embedding(config: Eagle3Config, reader: TensorReader, target: LoadedModel, source: str) -> torch.Tensor:
    if "embed_tokens.weight" in reader:
        return reader.take("embed_tokens.weight", config.layers.vocab_size, config.layers.hidden_size)
    if config.layers.hidden_size != target.config.hidden_size:
        raise DraftMismatchError(
            f"{source} has no embedding of its own, and the target's is {target.config.hidden_size} wide, "
            f"not {config.layers.hidden_size}"
        )
    return target.decoder.embedding


def _output(
    config: Eagle3Config,
    reader: TensorReader,
    target: LoadedModel,
    vocabulary: DraftVocabulary,
    source: str,
    linear: MakeLinear,
) -> Linear:
    if "lm_head.weight" in reader:
        return linear(reader.take("lm_head.weight", config.draft_vocab_size, config.layers.hidden_size))
    if not vocabulary.is_whole or config.layers.hidden_size != target.config.hidden_size:
        raise ModelLoadError(
            f"{source} lacks the tensor lm_head.weight, and only a head with the target's whole vocabulary and its "
            "hidden size can use the target's"
        )
    return target.decoder.output_head


def _feature_norms(config: Eagle3Config, reader: TensorReader) -> list[RmsNorm]:
    eps = config.layers.rms_eps
    if config.norm_before_fc and config.fc_norm:
        raise ModelLoadError("norm_before_fc and fc_norm exclude each other, and this head's config sets both")
    if config.norm_before_fc:
        return [RmsNorm(reader.take("input_norm.weight", config.feature_size), eps)]
    if config.fc_norm:
        size = config.target_hidden_size
        return [RmsNorm(reader.take(f"fc_norm.{i}.weight", size), eps) for i in range(len(config.feature_layers))]
    return []


def _layer(reader: TensorReader, config: Eagle3Config, prefix: str, is_first: bool, linear: MakeLinear) -> LayerWeights:
    shape = config.layers
    hidden, size = shape.hidden_size, shape.head_dim
    inputs = 2 * hidden if is_first else hidden
    queries, keys = shape.num_heads * size, shape.num_kv_heads * size
    qkv = [f"{prefix}self_attn.{name}_proj" for name in "qkv"]
    gate_up = [f"{prefix}mlp.{name}_proj.weight" for name in ("gate", "up")]
    bias = None
    if shape.attention_bias:
        bias = reader.take_joined([f"{name}.bias" for name in qkv], [(queries,), (keys,), (keys,)])
    output = f"{prefix}self_attn.o_proj"
    output_bias = reader.take(f"{output}.bias", hidden) if f"{output}.bias" in reader else None

    def norm(name: str, length: int) -> RmsNorm:
        return RmsNorm(reader.take(f"{prefix}{name}.weight", length), shape.rms_eps)

    shapes: list[tuple[int, ...]] = [(queries, inputs), (keys, inputs), (keys, inputs)]
    return LayerWeights(
        input_norm=norm("input_layernorm", hidden),
        qkv=linear(reader.take_joined([f"{name}.weight" for name in qkv], shapes), bias),
        output=linear(reader.take(f"{output}.weight", hidden, queries), output_bias),
        mlp_norm=norm("post_attention_layernorm", hidden),
        gate_up=linear(reader.take_joined(gate_up, [(shape.mlp_size, hidden)] * 2)),
        down=linear(reader.take(f"{prefix}mlp.down_proj.weight", hidden, shape.mlp_size)),
        query_norm=norm("self_attn.q_norm", size) if shape.qk_norm else None,
        key_norm=norm("self_attn.k_norm", size) if shape.qk_norm else None,
    )
