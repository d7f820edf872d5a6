"""What views show, as plain data: pure functions from traces to JSON, the same for notebooks, files and the site."""

from ssd_lab.widgets.view_model.document import view_data

__all__ = ["view_data"]
