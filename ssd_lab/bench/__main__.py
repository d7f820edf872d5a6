"""`python -m ssd_lab.bench` is `ssd-lab bench`."""

from __future__ import annotations

import sys

from ssd_lab.common.late import late

if __name__ == "__main__":
    late("app")(["bench", *sys.argv[1:]], prog_name="ssd-lab")
