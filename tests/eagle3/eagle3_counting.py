"""Texts that count, a target that learns them in seconds, and the settings of a head for it."""

from __future__ import annotations

import numpy as np

from ssd_lab.models.config import ModelConfig
from ssd_lab.training.config import TrainConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3 import Eagle3Training
from ssd_lab.training.eagle3_model import HeadConfig

VOCAB, END = 64, 2
SHAPE = ModelConfig(
    model_type="llama", hidden_size=32, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=16, mlp_size=48,
    vocab_size=VOCAB, max_positions=64, tie_embeddings=True, eos_token_ids=(END,), bos_token_id=0,
)  # fmt: skip
HEAD = HeadConfig(num_heads=2, num_kv_heads=1, intermediate_size=48, feature_layers=(1, 2, 3), head_dim=16)
RUN = TrainConfig(
    tokens_per_microbatch=512, microbatches_per_step=1, max_length_tokens=48, warmup_steps=5, max_steps=60,
    matrix_lr=0.05,
    embedding_lr=2e-3, weight_decay=0.01, prompt_loss_weight=0.05,
)  # fmt: skip
TRAINING = Eagle3Training(run=RUN, unroll_steps=3, checkpoint_steps=4)


def documents(count: int = 60, seed: int = 0) -> Corpus:
    """Texts that count in steps of 1, 2 or 3, as their first token says, and change the step at a 60."""
    rng = np.random.default_rng(seed)
    prompts, answers = [], []
    for _ in range(count):
        stride, value = int(rng.integers(1, 4)), int(rng.integers(8, 60))
        line = []
        for _ in range(int(rng.integers(12, 30))):
            value += stride
            if value >= 60:
                value, stride = value - 52, stride % 3 + 1
            line.append(value)
        prompts.append([3 + stride, value])
        answers.append([*line, END])
    return Corpus.build(prompts, answers)
