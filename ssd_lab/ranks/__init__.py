"""A model over several devices: its ranks, what they are told, and how what they compute comes together."""
