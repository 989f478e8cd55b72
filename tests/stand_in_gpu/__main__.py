"""`streamtrain` on the stand-in."""

import sys

from stand_in_gpu import plugin  # noqa: F401
from streamtrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
