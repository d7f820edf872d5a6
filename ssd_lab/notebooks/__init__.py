"""The tutorials as notebooks: copies for a reader's own folder, and answers to their exercises."""

from ssd_lab.notebooks.checking import Verdict, check, solution
from ssd_lab.notebooks.folder import Copied, copy_notebooks, notebook_paths

__all__ = ["Copied", "Verdict", "check", "copy_notebooks", "notebook_paths", "solution"]
