"""GGUF files: configuration, weights, tokenizer."""
