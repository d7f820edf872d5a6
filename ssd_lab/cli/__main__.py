"""`python -m ssd_lab.cli` is `ssd-lab`."""

from ssd_lab.cli.start import main

if __name__ == "__main__":  # the draft process imports this module too
    main()
