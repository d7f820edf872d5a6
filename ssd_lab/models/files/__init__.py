"""Where models are on disk or on a hub, and how their weights are read."""
