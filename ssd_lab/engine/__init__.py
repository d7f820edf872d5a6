"""Requests in, tokens out: the scheduler, the round, what is recorded, and the thread that owns it all."""
