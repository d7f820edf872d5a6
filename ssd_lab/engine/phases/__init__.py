"""The phases of a round, each one function over a step runner: verify, draft_chain, draft_tree."""
