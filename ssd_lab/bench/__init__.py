"""Benchmarks: this library beside others on the same weights, prompts and lengths; sweeps and reports."""
