"""What commands have in common whose stages several processes share: options, and these processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. seeds=5.")
profile_option = click.option(
    "--profile",
    type=click.Choice(["full", "smoke"]),
    default="full",
    help="smoke: minutes, only to see that every stage works.",
)
jobs_option = click.option("--jobs", type=click.IntRange(1), default=1, help="Processes that share the stages.")


def options(given: Mapping[str, object], overrides: Sequence[str]) -> list[str]:
    """Return options as a command line has them: those that have a value, and every override."""
    named = [part for option, value in given.items() if value for part in (option, str(value))]
    return [*named, *(part for override in overrides for part in ("--set", override))]


@contextmanager
def helpers(jobs: int, arguments: list[str]) -> Iterator[None]:
    """Share the stages, and the threads, with more processes; stop them when this one is stopped.

    Args:
        jobs: How many, with this one.
        arguments: The subcommand and its options, without --jobs.
    """
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    torch.set_num_threads(threads)
    command = [sys.executable, "-P", "-m", "mofo_train", *arguments, "--stages-only"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = [subprocess.Popen(command, env=environment) for _ in range(jobs - 1)]
    try:
        yield
    except BaseException:
        for helper in started:
            helper.terminate()  # it saves and can be resumed
        raise
    finally:
        for helper in started:
            helper.wait()
