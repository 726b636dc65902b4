"""`python -m motionbox` is the `motionbox` command."""

from motionbox.cli import main

main()
