"""Drafting with an EAGLE3 head."""
