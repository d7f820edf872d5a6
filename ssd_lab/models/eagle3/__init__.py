"""EAGLE3 heads: configuration, weights, forward."""
