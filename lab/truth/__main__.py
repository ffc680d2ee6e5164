"""``python -m lab.truth``: the report on published runs; ``python -m lab.truth here``: on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from .files import FILES
from .report import write

if __name__ == "__main__":
    if sys.argv[1:2] == ["here"]:
        from . import here

        sys.exit(here.main(sys.argv[2:]))
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/truth"), FILES)
