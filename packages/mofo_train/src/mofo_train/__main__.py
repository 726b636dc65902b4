"""Run the command line as `python -m mofo_train`."""

import os
import sys

# The working folder, put there by `-m`: a file that bears the name of a library would be run in its place.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  (pathlib might be such a file)
    del sys.path[0]

from mofo_train.cli import main

if __name__ == "__main__":
    main()
