"""Which models there are: each family says how checkpoints name it and how its decoder is made.

One more family is one file and one call of `FAMILIES.register`.
"""

from ssd_lab.models.families.family import Families, Family
from ssd_lab.models.families.llama import LLAMA
from ssd_lab.models.families.qwen3 import QWEN3

__all__ = ["FAMILIES", "Families", "Family"]

FAMILIES = Families([LLAMA, QWEN3])  # of this process: a draft's own process knows the built-in ones alone
