"""Where draft tokens come from: proposers, draft workers and their speculation cache."""
