"""`ssd-lab train`: train the bundled family again, or a draft for a target of yours."""

from __future__ import annotations

NAME = "train"
HELP = "Train the bundled model family, or a draft."


def command() -> None:
    """Replaced when the training package is whole."""
