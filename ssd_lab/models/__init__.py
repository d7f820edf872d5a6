"""Models from their files to logits."""
