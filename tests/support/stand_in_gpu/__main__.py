"""`streamtrain` on the stand-in."""

import sys

from streamtrain.cli.main import main
from support.stand_in_gpu import plugin  # noqa: F401

if __name__ == "__main__":
    sys.exit(main())
