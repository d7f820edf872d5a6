"""Measuring: this library beside others on the same weights, prompts and lengths."""
