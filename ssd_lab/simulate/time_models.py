"""What one forward costs, by its rows: as a straight line, or as measured points."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FrozenRecord(BaseModel):
    """Data that nobody changes, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AffineTime(FrozenRecord):
    """`base_s + per_row_s * rows`, in seconds."""

    kind: Literal["affine"] = "affine"
    base_s: Seconds
    per_row_s: Seconds = 0.0

    def at(self, rows: int) -> float:
        """Seconds of one forward over `rows` rows."""
        return self.base_s + self.per_row_s * rows


class TableTime(FrozenRecord):
    """Measured points, linear between them; below the first its time, above the last the last slope goes on."""

    kind: Literal["table"] = "table"
    rows: tuple[int, ...] = Field(min_length=1)
    seconds: tuple[Seconds, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_points(self) -> TableTime:
        if len(self.rows) != len(self.seconds):
            raise ValueError(f"{len(self.rows)} rows but {len(self.seconds)} seconds: one time for each row count")
        if any(b <= a for a, b in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError(f"rows {self.rows} must increase")
        return self

    @classmethod
    def of(cls, seconds: Mapping[int, float]) -> TableTime:
        """Measured seconds by rows; noise must not make more rows faster."""
        rows = tuple(sorted(seconds))
        return cls(rows=rows, seconds=tuple(accumulate((max(0.0, seconds[count]) for count in rows), max)))

    def at(self, rows: int) -> float:
        """Seconds of one forward over `rows` rows."""
        if rows <= self.rows[0] or len(self.rows) == 1:
            return self.seconds[0]
        high = min(bisect_left(self.rows, rows), len(self.rows) - 1)
        slope = (self.seconds[high] - self.seconds[high - 1]) / (self.rows[high] - self.rows[high - 1])
        return max(0.0, self.seconds[high - 1] + slope * (rows - self.rows[high - 1]))


def _constant_time(value: Any) -> Any:
    """A plain number is a time that does not depend on the rows."""
    return {"kind": "affine", "base_s": value} if isinstance(value, int | float) else value


TimeModel = Annotated[AffineTime | TableTime, Field(discriminator="kind"), BeforeValidator(_constant_time)]
