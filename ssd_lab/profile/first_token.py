"""A process that writes one line once it has its first token: `starts` times it from outside."""

from __future__ import annotations

import json
import sys
from typing import Any

FIRST = "first token"


def main(arguments: dict[str, Any]) -> None:
    """arguments: of `LLM`."""
    from ssd_lab import LLM, SamplingParams

    with LLM(**arguments, progress=False) as llm:
        for _ in llm.stream([1, 2, 3, 4], SamplingParams(max_tokens=2, ignore_eos=True)):
            sys.stdout.write(f"{FIRST}\n")
            sys.stdout.flush()
            break


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
