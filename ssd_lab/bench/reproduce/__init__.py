"""The figures of the Saguaro paper (arXiv 2603.03251) beside ours: rounds recorded here, and the virtual clock."""

from __future__ import annotations

from ssd_lab.bench.reproduce.recording import Recordings
from ssd_lab.bench.reproduce.report import SECTIONS, reproduce

__all__ = ["SECTIONS", "Recordings", "reproduce"]
