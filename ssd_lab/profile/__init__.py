"""What this machine takes for each phase of a round: `ssd-lab profile`."""
