"""Several copies of all engines behind one server, as replicas of Ray Serve: `ssd-lab serve --replicas N`."""
