"""Injected faults: whatever breaks, a resumed run ends with the content of an uninterrupted one.

`make test` runs a quick sweep; `make test-faults` runs every failpoint x fault x position and more, from a printed seed
(`MOTIONBOX_FAULT_SEED` repeats one), in parts, so that a sweep that was interrupted goes on with `-k part07`.
"""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fault_harness import Fault, Outcome, reference, run_trial
from motionbox.storage.failpoints import KINDS, POINTS

_GUIDANCE_POINTS = ("guidance.write", "guidance.before_publish", "guidance.after_publish")
# How often an uninterrupted session passes each point: once or twice, once per unit, or once per file.
_ONCE = ("snapshot.write", "snapshot.before_publish", "snapshot.after_publish", *_GUIDANCE_POINTS)
_PER_FILE = ("attempt.write", "attempt.torn", "attempt.fsync", "flow.write", "flow.torn", "run.write")
_NUM_UNITS = 6
_ROWS_POINTS = ("rows.read",)  # passed only where another run has the rows
_BUCKET_POINTS = ("object.put", "object.read_back")  # passed only where the store lies in a bucket
_OWN_POINTS = tuple(point for point in POINTS if point not in (*_ROWS_POINTS, *_BUCKET_POINTS))
_FLOW_POINTS = ("flow.write", "flow.torn", "flow.fsync")
_NUM_PARTS, _NUM_KNOWN_PARTS = 20, 3
_SEED = int(os.environ.get("MOTIONBOX_FAULT_SEED", time.time_ns() % 2**32))


@pytest.fixture
def stages() -> Iterator[Path]:
    """Return a directory in memory where there is one: fsync costs nothing there."""
    memory = Path("/dev/shm")  # noqa: S108
    root = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if os.access(memory, os.W_OK) else None))
    yield root
    shutil.rmtree(root, ignore_errors=True)


def sweep(root: Path, faults: list[Fault]) -> list[Outcome]:
    """Run trials, two at a time, and remove the stages of those without a violation."""
    expected = reference(root / "reference")

    def trial(entry: tuple[int, Fault]) -> Outcome:
        number, fault = entry
        directory = root / f"trial{number}"
        outcome = run_trial(directory, fault, expected)
        if not outcome.violations:
            shutil.rmtree(directory, ignore_errors=True)
        return outcome

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(trial, enumerate(faults)))


def failpoint_faults(rng: random.Random, positions_per_file: int, points: Sequence[str] = _OWN_POINTS) -> list[Fault]:
    """Return every failpoint x kind x position; a fault late in the run meets a store where nothing is done yet."""
    faults = []
    for point in points:
        positions = 1 if point in _ONCE else positions_per_file if point in _PER_FILE else _NUM_UNITS
        for kind in KINDS:
            for position in range(1, positions + 1):
                partial = rng.choice([-1, 1, 2]) if position <= 3 and point != "run.write" else -1
                faults.append(Fault("failpoint", f"{point}:{position}:{kind}", rng.getrandbits(32), partial))
    return faults


def other_faults(rng: random.Random, counts: dict[str, int]) -> list[Fault]:
    """Return signals at random times, races and damage."""
    details = {"sigkill": ["0.4"], "sigterm": ["0.4"], "race": ["0.3"], "damage": ["flip", "tear"]}
    return [
        Fault(kind, rng.choice(details[kind]), rng.getrandbits(32), rng.choice([-1, 1, 3]))
        for kind, count in counts.items()
        for _ in range(count)
    ]


def judge(outcomes: list[Outcome]) -> None:
    """Fail with the first violations; check that the faults did happen and that little was redone."""
    bad = [(outcome.fault, outcome.violations) for outcome in outcomes if outcome.violations]
    assert not bad, "\n".join(f"{fault}: {violations}" for fault, violations in bad[:10])
    # A unit opens at most three videos here; two racing drivers may do everything twice.
    redone = [o for o in outcomes if o.fault.kind in ("failpoint", "sigkill", "sigterm") and o.redone > 3]
    assert not redone, f"more than one unit redone: {redone[:5]}"


def test_quick_sweep(stages: Path) -> None:
    rng = random.Random(7)
    faults = [f for f in failpoint_faults(rng, 3) if f.detail.split(":")[2] in ("kill", "enospc")]
    flow = [fault for fault in faults if fault.detail.startswith(_FLOW_POINTS)]
    guidance = [fault for fault in faults if fault.detail.startswith(_GUIDANCE_POINTS)]
    faults = rng.sample([fault for fault in faults if fault not in (*flow, *guidance)], 14) + rng.sample(flow, 6)
    faults += rng.sample(guidance, 3)
    outcomes = sweep(stages, faults + other_faults(rng, {"sigkill": 2, "sigterm": 2, "race": 2, "damage": 2}))
    judge(outcomes)
    assert sum(outcome.struck for outcome in outcomes) >= 20
    assert sum(outcome.struck for outcome in outcomes if outcome.fault in flow) >= 4
    assert sum(outcome.struck for outcome in outcomes if outcome.fault in guidance) == 3


def with_known_rows(faults: list[Fault]) -> list[Fault]:
    """Return the same faults in a store where another run has the rows, and frames alone are coded."""
    return [replace(fault, known=True) for fault in faults]


def without_links(faults: list[Fault]) -> list[Fault]:
    """Return the same faults on a file system without hard links."""
    return [replace(fault, links=False) for fault in faults]


def test_quick_sweep_without_hard_links(stages: Path) -> None:
    rng = random.Random(8)
    faults = [f for f in failpoint_faults(rng, 2) if f.detail.startswith("commit.") and f.detail.endswith("kill")]
    faults = rng.sample(faults, 6) + other_faults(rng, {"sigkill": 1, "race": 3, "damage": 1})
    outcomes = sweep(stages, without_links(faults))
    judge(outcomes)
    assert sum(outcome.struck for outcome in outcomes) >= 8


def full_sweep() -> list[Fault]:
    """Return the faults of the full sweep, of all parts, in the order of the seed."""
    rng = random.Random(_SEED)
    faults = [fault for _ in range(3) for fault in failpoint_faults(rng, 10)]
    faults += other_faults(rng, {"sigkill": 180, "sigterm": 140, "race": 130, "damage": 100})
    faults += without_links([fault for fault in failpoint_faults(rng, 3) if fault.detail.startswith("commit.")])
    faults += without_links(other_faults(rng, {"sigkill": 20, "race": 40, "damage": 10}))
    rng.shuffle(faults)
    return faults


def test_quick_sweep_with_known_rows(stages: Path) -> None:
    rng = random.Random(9)
    faults = [f for f in failpoint_faults(rng, 2) if f.detail.split(":")[2] in ("kill", "eio")]
    rows = [f for f in failpoint_faults(rng, 3, _ROWS_POINTS) if f.partial < 2]
    faults = rng.sample(rows, 4) + rng.sample(faults, 6)
    outcomes = sweep(stages, with_known_rows(faults + other_faults(rng, {"sigkill": 1, "race": 1, "damage": 1})))
    judge(outcomes)
    # Whether a signal at a random time meets a session depends on how busy the machine is.
    assert sum(outcome.struck for outcome in outcomes if outcome.fault.kind != "sigkill") >= 10
    assert sum(outcome.struck for outcome in outcomes if outcome.fault.detail.startswith("rows.")) == 4


def full_sweep_with_known_rows() -> list[Fault]:
    """Return faults of sessions that take over another run's rows."""
    rng = random.Random(_SEED)
    faults = rng.sample(failpoint_faults(rng, 3), 150) + failpoint_faults(rng, 3, _ROWS_POINTS)
    faults += other_faults(rng, {"sigkill": 40, "sigterm": 20, "race": 30, "damage": 20})
    rng.shuffle(faults)
    return with_known_rows(faults)


@pytest.mark.faults
@pytest.mark.parametrize("part", [f"part{number:02}" for number in range(_NUM_PARTS)])
def test_full_sweep(stages: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    sweep_and_tell(stages, full_sweep()[int(part[4:]) :: _NUM_PARTS], capsys, part)


@pytest.mark.faults
@pytest.mark.parametrize("part", [f"known{number}" for number in range(_NUM_KNOWN_PARTS)])
def test_full_sweep_with_known_rows(stages: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    sweep_and_tell(stages, full_sweep_with_known_rows()[int(part[5:]) :: _NUM_KNOWN_PARTS], capsys, part)


def sweep_and_tell(root: Path, faults: list[Fault], capsys: pytest.CaptureFixture[str], part: str) -> None:
    """Run a part of a sweep, print what struck, and judge."""
    started = time.monotonic()
    outcomes = sweep(root, faults)
    struck = [outcome for outcome in outcomes if outcome.struck]
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{part} of seed {_SEED}: {len(struck):,} of {len(faults):,} faults struck "
            f"in {time.monotonic() - started:.0f} s"
        )
        counts, violations = Counter(map(name_of, struck)), Counter()
        for outcome in outcomes:
            violations[name_of(outcome)] += len(outcome.violations)
        for name in sorted(counts):
            print(f"  {name:34} {counts[name]:5} faults {violations[name]:3} violations")  # noqa: T201
    judge(outcomes)
    assert len(struck) >= 0.75 * len(faults)


def name_of(outcome: Outcome) -> str:
    """Return the row of the fault table that an outcome belongs to."""
    fault = outcome.fault
    links = ("" if fault.links else ", no links") + (", known rows" if fault.known else "")
    if fault.kind != "failpoint":
        return (f"{fault.kind} {fault.detail}" if fault.kind == "damage" else fault.kind) + links
    point, _, kind = fault.detail.split(":")
    return f"{point} {kind}{links}"
