"""What the library itself takes beside its models: memory, and the time of watching."""
