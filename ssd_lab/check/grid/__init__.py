"""Every strategy with every component, temperature and batch: the library behind `ssd-lab check --grid`."""

from ssd_lab.check.grid.configurations import Configuration, Configurations, configurations
from ssd_lab.check.grid.report import GridReport
from ssd_lab.check.grid.running import GridExtent, run_grid

__all__ = ["Configuration", "Configurations", "GridExtent", "GridReport", "configurations", "run_grid"]
