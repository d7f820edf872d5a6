"""The command line, `ssd-lab`: one file a command."""
