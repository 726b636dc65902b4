"""How long the commands and the store's reader take to start: medians over fresh processes, in turn.

    python benchmarks/start_speed.py [--rounds 15]

Wall time is what a user waits on an idle machine; processor time is what it costs on a busy one.
"""

import argparse
import os
import statistics
import sys
import time

IMPORT = "import {0}"
RUN = "import sys; from {0} import main; main(sys.argv[1:])"
CASES: dict[str, tuple[float, list[str]]] = {
    "python": (0.0, ["-c", "pass"]),
    "motionbox --help": (0.4, ["-c", RUN.format("motionbox.cli"), "--help"]),
    "mofo-train --help": (0.4, ["-c", RUN.format("mofo_train.cli"), "--help"]),
    "import motionbox.store": (0.5, ["-c", IMPORT.format("motionbox.store")]),
    "motionbox extract --help": (0.0, ["-c", RUN.format("motionbox.cli"), "extract", "--help"]),
    "mofo-train pretrain --help": (0.0, ["-c", RUN.format("mofo_train.cli"), "pretrain", "--help"]),
}


def run_once(arguments: list[str]) -> tuple[float, float]:
    """Run a fresh interpreter; returns wall and processor seconds.

    Raises:
        RuntimeError: It failed.
    """
    started = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=quiet)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"python {' '.join(arguments)} must exit with 0, got {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="fresh processes of each case (default: 15)")
    rounds: int = parser.parse_args().rounds
    for _, arguments in CASES.values():
        run_once(arguments)  # bytecode and file cache
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, (_, arguments) in CASES.items():
            times[name].append(run_once(arguments))
    lines = ["| process | wall, s | processor, s | aim, s |", "|---|---|---|---|"]
    for name, (aim, _) in CASES.items():
        wall, cpu = (statistics.median(column) for column in zip(*times[name], strict=True))
        lines.append(f"| `{name}` | {wall:.2f} | {cpu:.2f} | {f'{aim:.1f}' if aim else ''} |")
    sys.stdout.write("\n".join(lines) + f"\n\n{rounds} processes each, load {os.getloadavg()[0]:.1f}.\n")


if __name__ == "__main__":
    main()
