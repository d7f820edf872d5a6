"""Shape of an EAGLE3 head, from the configs in which heads are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssd_lab.errors import DraftMismatchError, ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.config_json import config_from_json

AUX_LAYERS = "eagle_aux_hidden_state_layer_ids"
_OF_HEAD = frozenset({
    "architectures", AUX_LAYERS, "eagle_config", "draft_vocab_size", "target_hidden_size", "norm_before_residual",
    "norm_before_fc", "fc_norm", "norm_output",
})  # fmt: skip
_OF_ROTATION = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})


def default_feature_layers(num_layers: int) -> tuple[int, ...]:
    """The layers at whose input a target of so many layers is read: 2, the middle, the fourth from the end.

    Li et al., arXiv 2503.01840; the numbers are those of the authors' code. Raises ModelLoadError for a target of
    fewer than five layers.
    """
    if num_layers < 5:
        raise ModelLoadError(
            f"a target of {num_layers} layers has no EAGLE3 features by default: "
            f"name the layers in the head's config ({AUX_LAYERS}, 0..{num_layers})"
        )
    return (2, num_layers // 2, num_layers - 3)


@dataclass(frozen=True)
class Eagle3Config:
    """An EAGLE3 head for one target.

    layers: shape of the head's decoder layers; its vocabulary is the target's, its rotation see `from_hf`.
    feature_layers: the target layers at whose *input* the residual stream is read, low to high; the number of layers
    itself stands for what goes into the final norm. norm_before_residual: the residual of the first layer is the
    feature after `hidden_norm`, not before. norm_before_fc: one norm over all features; fc_norm: one norm each.
    norm_output: the next step gets the hidden state after the final norm, not before.
    """

    layers: ModelConfig
    target_hidden_size: int
    draft_vocab_size: int
    feature_layers: tuple[int, ...]
    norm_before_residual: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_output: bool = False

    @property
    def feature_size(self) -> int:
        """Length of the concatenated features."""
        return len(self.feature_layers) * self.target_hidden_size

    @property
    def num_parameters(self) -> int:
        """Weights of its own; the embedding is the target's."""
        layers = self.layers
        wider = layers.hidden_size * layers.head_dim * (layers.num_heads + 2 * layers.num_kv_heads)  # token and feature
        combine, head = self.feature_size * layers.hidden_size, self.draft_vocab_size * layers.hidden_size
        return layers.num_non_embedding_parameters + wider + combine + head

    @classmethod
    def from_hf(cls, data: Mapping[str, Any], target: ModelConfig) -> Eagle3Config:
        """From config.json as SafeAILab, SpecForge or the speculators library write it.

        The rotation is the target's: heads in the first two layouts are known to state a wrong one. speculators writes
        the one it trained with, which is taken. Positions are always the target's. Raises ModelLoadError for another
        kind of checkpoint, DraftMismatchError for a head that was made for another target.
        """
        of_speculators = "speculators_model_type" in data
        if of_speculators and data["speculators_model_type"] != "eagle3":
            raise ModelLoadError(
                f"speculators_model_type is {data['speculators_model_type']!r}: only eagle3 heads can be loaded"
            )
        shape = dict(data.get("transformer_layer_config") or {}) if of_speculators else dict(data)
        shape.setdefault("model_type", "llama")
        shape.setdefault("vocab_size", target.vocab_size)
        shape["max_position_embeddings"] = target.max_positions
        shape["num_hidden_layers"] = shape.get("num_hidden_layers") or 1
        has_rotation = of_speculators and ("rope_theta" in shape or "rope_parameters" in shape)
        others = _OF_HEAD if has_rotation else _OF_HEAD | _OF_ROTATION
        layers = config_from_json({name: value for name, value in shape.items() if name not in others})
        if not has_rotation:
            layers = replace(layers, rope_theta=target.rope_theta, rope_scaling=target.rope_scaling)
        options = dict(data.get("eagle_config") or {}) | dict(data)  # some checkpoints keep the switches in there
        config = cls(
            layers=layers,
            target_hidden_size=data.get("target_hidden_size") or target.hidden_size,
            draft_vocab_size=data.get("draft_vocab_size") or layers.vocab_size,
            feature_layers=_feature_layers(data, target.num_layers),
            norm_before_residual=bool(options.get("norm_before_residual", False)),
            norm_before_fc=bool(options.get("norm_before_fc", False)),
            fc_norm=bool(options.get("fc_norm", False)),
            norm_output=bool(options.get("norm_output", False)),
        )
        config.check_target(target)
        return config

    def check_target(self, target: ModelConfig) -> None:
        """Raise DraftMismatchError unless this head reads features and tokens of such a target."""
        if self.target_hidden_size != target.hidden_size:
            raise DraftMismatchError(
                f"the EAGLE3 head reads features of size {self.target_hidden_size} and the target has "
                f"{target.hidden_size}: take the head that was trained for this target"
            )
        if self.layers.vocab_size != target.vocab_size:
            raise DraftMismatchError(
                f"the EAGLE3 head was made for {self.layers.vocab_size} token ids and the target has "
                f"{target.vocab_size}: take the head that was trained for this target"
            )
        if not self.feature_layers or any(not 0 <= layer <= target.num_layers for layer in self.feature_layers):
            raise DraftMismatchError(
                f"the EAGLE3 head reads the target at layers {list(self.feature_layers)}, which has layers "
                f"0..{target.num_layers - 1} ({target.num_layers} stands for the input of its final norm)"
            )


def _feature_layers(data: Mapping[str, Any], num_layers: int) -> tuple[int, ...]:
    """Layer inputs. vLLM and speculators number inputs, at the top level of the config; SGLang and SpecForge number
    outputs, in `eagle_config`, where layer i therefore means the input of layer i + 1.
    """
    inputs = data.get(AUX_LAYERS)
    if inputs:
        return _whole_numbers(inputs)
    outputs = (data.get("eagle_config") or {}).get(AUX_LAYERS)
    if outputs:
        return tuple(layer + 1 for layer in _whole_numbers(outputs))
    return default_feature_layers(num_layers)


def _whole_numbers(layers: Any) -> tuple[int, ...]:
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not all(isinstance(one, int) for one in layers):
        raise ModelLoadError(f"{AUX_LAYERS} is {layers!r}: a list of layer numbers is expected")
    return tuple(layers)
