"""Run the command line as `python -m mofo_train`."""

from mofo_train.cli import main

if __name__ == "__main__":
    main()
