"""What an engine is made of, before it runs: loading, the memory plan, building."""
