"""What is learnt while it runs: fan-out, lookahead and fallback from the outcomes and times of past rounds."""
