"""How much is measured: all that the report wants, or little, to try the whole plan on processes of a CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """prompts, tokens, batches: of texts that are compared; draws: of sampled tokens on every path.

    lookaheads, fan_outs, round_batches, round_prompts, round_tokens: of rounds; centre: the lookahead around which the
    others vary; all_cells: every combination of them. sum_rows, trips: of sums and messages. repeats, context: of
    phases.
    """

    prompts: int = 100
    tokens: int = 128
    batches: tuple[int, ...] = (1, 16)
    draws: int = 3000
    lookaheads: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    centre: int = 4
    fan_outs: tuple[int, ...] = (1, 2, 3, 4)
    fallbacks: tuple[str, ...] = ("jit", "fast", "auto")
    round_batches: tuple[int, ...] = (1, 4, 16)
    round_prompts: int = 4
    round_tokens: int = 256
    sum_rows: tuple[int, ...] = (1, 8, 24, 128, 512)
    trips: int = 2000
    repeats: int = 20
    context: int = 512
    all_cells: bool = False

    @classmethod
    def usual(cls, count: int, *, crossed: bool = False) -> Extent:
        """For so many GPUs. crossed: every lookahead with every fan-out and fallback, not each around the usual one."""
        if count < 4:
            return cls(all_cells=crossed)
        batches = (1, 4, 16) if count == 4 else (1, 4, 16, 32)
        return cls(lookaheads=(4, 5, 6, 7, 8), centre=6, round_batches=batches, round_tokens=512, all_cells=crossed)

    @classmethod
    def small(cls, *, crossed: bool = False) -> Extent:
        """For two cores that play all the devices."""
        return cls(
            prompts=4, tokens=12, batches=(1, 4), draws=500, lookaheads=(2, 3), centre=3, fan_outs=(1, 2),
            fallbacks=("jit", "fast"), round_batches=(1, 2), round_prompts=2, round_tokens=32, sum_rows=(1, 8),
            trips=50, repeats=3, context=64, all_cells=crossed,
        )  # fmt: skip

    @property
    def usual_fan_out(self) -> int:
        """3 where it is asked for."""
        return 3 if 3 in self.fan_outs else self.fan_outs[-1]
