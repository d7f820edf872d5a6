"""Quantised checkpoints are told by their config, or by the types of their tensors, and refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd_lab.errors import ModelLoadError

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # safetensors' names of the types that are read

_METHODS = {
    "awq": "AWQ", "gptq": "GPTQ", "fp8": "FP8", "bitsandbytes": "bitsandbytes", "fbgemm_fp8": "FP8 (fbgemm)",
    "compressed-tensors": "compressed-tensors", "mxfp4": "MXFP4", "modelopt": "ModelOpt", "hqq": "HQQ",
    "aqlm": "AQLM", "exl2": "EXL2", "exl3": "EXL3", "torchao": "torchao", "quanto": "quanto", "bitnet": "BitNet",
}  # fmt: skip
_BY_NAME = {  # how the tensors of a method are called, where the config does not say it
    ".qweight": "AWQ or GPTQ", ".qzeros": "AWQ or GPTQ", ".weight_packed": "compressed-tensors",
    ".absmax": "bitsandbytes", ".SCB": "bitsandbytes", "_blocks": "MXFP4", ".weight_scale_inv": "FP8",
    ".weight_scale": "FP8 or compressed-tensors", ".scales": "MLX or AWQ", ".biases": "MLX",
}  # fmt: skip
WHAT_TO_TAKE = (
    "take the checkpoint in bfloat16, float16 or float32 that it was made from, or a GGUF file of the model "
    "(its quantised types are read)"
)


def check_config(data: Mapping[str, Any]) -> None:
    """Raise ModelLoadError if a config says that the weights are quantised."""
    for entry in ("quantization_config", "compression_config", "quantization"):
        if data.get(entry):
            raise ModelLoadError(
                f"the checkpoint is quantised ({_method(data[entry], entry)}, by {entry} in config.json), and such "
                f"weights are not read: {WHAT_TO_TAKE}"
            )


def check_types(types: Mapping[str, str], source: str) -> None:
    """Raise ModelLoadError for tensors of quantised types. types: by tensor name, as safetensors calls them."""
    packed = sorted(name for name, kind in types.items() if kind not in FLOATS)
    if not packed:
        return
    found = {method for name in types for ending, method in _BY_NAME.items() if name.endswith(ending)}
    kinds = sorted({types[name] for name in packed})
    method = f"{', '.join(sorted(found))}; " if found else ""
    raise ModelLoadError(
        f"{source} holds quantised weights ({method}{len(packed)} tensors of type {', '.join(kinds)}, such as "
        f"{packed[0]}), and such weights are not read: {WHAT_TO_TAKE}"
    )


def _method(given: Any, entry: str) -> str:
    if not isinstance(given, Mapping):
        return str(given)
    name = str(given.get("quant_method") or given.get("quant_algo") or ("MLX" if entry == "quantization" else "?"))
    if name == "?" and "group_size" in given:
        name = "MLX"
    bits = given.get("bits") or given.get("w_bit") or (4 if given.get("load_in_4bit") else None)
    return _METHODS.get(name, name) + (f", {bits} bits" if bits else "")
