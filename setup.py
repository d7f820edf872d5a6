"""One build step that pyproject.toml cannot say: the wheel takes the tutorials from notebooks/, their only place,
and the results that they read from docs/results/runs/ and docs/traces/.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNotebooks(build_py):
    """Puts notebooks/*.ipynb into ssd_lab/notebooks/files; an editable install reads them where they are."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "ssd_lab", "notebooks", "files")
        self.mkpath(str(folder))
        for notebook in sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb")):
            self.copy_file(str(notebook), str(folder / notebook.name))
        self.copy_file(str(Path("docs", "results", "h100", "hardware.json")), str(folder / "h100.json"))
        runs = sorted(Path("docs", "results", "runs").glob("*.json"))
        if runs:
            self.mkpath(str(folder / "runs"))
        for run in runs:
            self.copy_file(str(run), str(folder / "runs" / run.name))
        self.mkpath(str(folder / "two_gpus"))
        for trace in sorted(Path("docs", "traces", "two_gpus").iterdir()):
            self.copy_file(str(trace), str(folder / "two_gpus" / trace.name))


setup(cmdclass={"build_py": BuildWithNotebooks})
