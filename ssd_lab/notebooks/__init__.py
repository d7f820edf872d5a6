"""The tutorials as notebooks: copies for a reader's own folder, and answers to their exercises."""

from ssd_lab.notebooks.checking import Verdict, check, hint, solution, tally
from ssd_lab.notebooks.folder import Copied, copy_notebooks, notebook_paths
from ssd_lab.notebooks.predicting import predict, reveal

__all__ = [
    "Copied",
    "Verdict",
    "check",
    "copy_notebooks",
    "hint",
    "notebook_paths",
    "predict",
    "reveal",
    "solution",
    "tally",
]
