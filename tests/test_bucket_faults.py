"""Injected faults over object storage: kills, broken and lost answers, races, a driver that wakes after its lease.

`make test` runs a quick sweep; `make test-faults` runs all of it, from a printed seed (`MOTIONBOX_FAULT_SEED` repeats
one), in parts, so that a sweep that was interrupted goes on with `-k part3`, and parts can be run beside each other.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from fault_harness import Fault, Outcome
from faulty_bucket import Bucket, running_bucket

pytest.importorskip("moto")

POINTS = (
    *("run.write", "attempt.create", "attempt.write", "attempt.torn", "attempt.verify"),
    *("object.put", "object.read_back", "commit.write", "commit.before_link", "commit.after_link", "unit.acknowledge"),
    *("snapshot.write", "snapshot.before_publish", "snapshot.after_publish"),
    *("guidance.write", "guidance.before_publish", "guidance.after_publish", "lease.put"),
)
_PER_FILE = {"object.put": 12, "object.read_back": 12, "attempt.write": 8, "attempt.torn": 8, "run.write": 4}
_NUM_UNITS = 2
_AT_ONCE = 10
_ONCE = ("snapshot", "guidance", "lease")
_NUM_PARTS = 4
_SEED = int(os.environ.get("MOTIONBOX_FAULT_SEED", time.time_ns() % 2**32))
REQUESTS = (
    *(f"{kind}:{count}" for kind in ("500", "503", "cut", "half", "timeout", "lost") for count in (1, 3)),
    *(f"{kind}:200" for kind in ("500", "expired", "denied", "skew")),
    *(f"lag:{count}:GET:list-type=" for count in (1, 3, 9, 99)),
    *(
        f"lost:{count}:PUT:{name}"
        for count in (1, 2, 3, 9)
        for name in ("/commits/", "MANIFEST.json", "/lease/", "run.json")
    ),
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with running_bucket() as running:
        yield running


def sweep(bucket: Bucket, root: Path, faults: list[Fault]) -> list[Outcome]:
    """Run trials in a process of their own, several at a time: they wait more than they compute."""
    asked = {
        **asdict(bucket),
        "root": str(root),
        "at_once": _AT_ONCE,
        "faults": [asdict(fault) for fault in faults],
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    trials = [sys.executable, str(Path(__file__).with_name("bucket_trials.py"))]
    log = root / "outcomes.jsonl"
    with log.open("w") as file:
        done = subprocess.run(
            trials,
            env=environment,
            input=json.dumps(asked),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in log.read_text().splitlines()]
    return [Outcome(**{**outcome, "fault": Fault(**outcome["fault"])}) for outcome in outcomes]


def failpoint_faults(rng: random.Random) -> list[Fault]:
    """Return every point x kind at random passages."""
    faults = []
    for point in POINTS:
        most = 1 if point.startswith(_ONCE) else _PER_FILE.get(point, _NUM_UNITS)
        for kind in ("kill", "eio", "hang"):
            partial = -1 if point == "run.write" else rng.choice([-1, 1])
            faults.append(Fault("failpoint", f"{point}:{rng.randint(1, most)}:{kind}", rng.getrandbits(32), partial))
    return faults


def other_faults(rng: random.Random, counts: dict[str, int]) -> list[Fault]:
    """Return broken requests, kills at random times, races and sleepers."""
    details = {"request": REQUESTS, "kill": ("1.5",), "race": ("1.0",), "sleeper": ("1.0",)}
    return [
        Fault(kind, rng.choice(details[kind]), rng.getrandbits(32), rng.choice([-1, 1]))
        for kind, count in counts.items()
        for _ in range(count)
    ]


def judge(outcomes: list[Outcome]) -> None:
    """Fail with the first violations."""
    bad = [(outcome.fault, outcome.violations) for outcome in outcomes if outcome.violations]
    assert not bad, "\n".join(f"{fault}: {violations}" for fault, violations in bad[:10])


def name_of(fault: Fault) -> str:
    """Return the row of the fault table that a fault belongs to."""
    if fault.kind == "failpoint":
        point, _, kind = fault.detail.split(":")
        return f"{point} {kind}"
    return f"request {fault.detail.split(':')[0]}" if fault.kind == "request" else fault.kind


def test_quick_sweep(bucket: Bucket, tmp_path: Path) -> None:
    faults = [
        Fault("failpoint", "commit.after_link:1:kill", 1, -1),
        Fault("failpoint", "object.put:5:eio", 2, -1),
        Fault("request", "lost:3:PUT:/commits/", 3, -1),
        Fault("request", "lost:9:PUT:MANIFEST.json", 4, 1),
        Fault("request", "503:3", 5, -1),
        Fault("request", "expired:200", 6, 1),
        Fault("request", "lag:99:GET:list-type=", 9, 1),
        Fault("race", "0.5", 7, -1),
        Fault("sleeper", "0.6", 8, -1),
    ]
    outcomes = sweep(bucket, tmp_path, faults)
    judge(outcomes)
    assert sum(outcome.struck for outcome in outcomes) >= 8


def full_sweep() -> list[Fault]:
    """Return the faults of the full sweep, of all parts, in the order of the seed."""
    rng = random.Random(_SEED)
    faults = [fault for _ in range(4) for fault in failpoint_faults(rng)]
    faults += other_faults(rng, {"request": 160, "kill": 40, "race": 40, "sleeper": 20})
    rng.shuffle(faults)
    return faults


@pytest.mark.faults
@pytest.mark.parametrize("part", [f"part{number}" for number in range(_NUM_PARTS)])
def test_full_sweep(bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    faults = full_sweep()[int(part[4:]) :: _NUM_PARTS]
    outcomes = sweep(bucket, tmp_path, faults)
    struck = [outcome for outcome in outcomes if outcome.struck]
    violations = Counter(name_of(outcome.fault) for outcome in outcomes for _ in outcome.violations)
    with capsys.disabled():
        print(f"\n{part} of seed {_SEED}: {len(struck)} of {len(faults)} faults struck")  # noqa: T201
        for name, count in sorted(Counter(name_of(outcome.fault) for outcome in struck).items()):
            print(f"  {name:34} {count:5} faults {violations[name]:3} violations")  # noqa: T201
    judge(outcomes)
    assert len(struck) >= 0.8 * len(faults)
