"""`python -m streamtrain` is the command `streamtrain`."""

import sys

from streamtrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
