"""Pure maths: no clock for hypothesis on a machine that others use."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
