"""A conversation with a model, without a terminal: history, settings, and where each token came from."""
