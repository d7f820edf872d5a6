"""Names of models that the package knows: the bundled pair, and the EAGLE3 heads published for a target."""

from __future__ import annotations

BUNDLED = "bundled"
LLAMA_33 = "meta-llama/Llama-3.3-70B-Instruct"  # the 70B target that a published head was trained on
EAGLE_HEADS = {
    "meta-llama/Llama-3.1-8B-Instruct": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
    LLAMA_33: "lmsys/SGLang-EAGLE3-Llama-3.3-70B-Instruct-SpecForge",
    "Qwen/Qwen3-32B": "RedHatAI/Qwen3-32B-speculator.eagle3",
}
