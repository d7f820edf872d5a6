"""Parts that strategies share: fan-out, fallback, lookahead, tree shapes."""
