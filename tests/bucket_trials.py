"""Extractions into a bucket that are broken and resumed, judged by the oracle of the file systems' sweep.

A program of its own: it reads `{"port", "sound_port", "root", "at_once", "faults"}` as JSON and writes a line of JSON
for each outcome as it comes.

obstore's threads do not survive a fork, so whatever touches the bucket does so in a forked process of its own; the
process that plants faults only watches.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import fault_harness
from fault_harness import DONE, FAILED, INTERRUPTED, KILLED, Fault, Outcome, Stage, fork, race
from faulty_bucket import BUCKET, Bucket
from motionbox.errors import StoreError
from motionbox.storage import ObjectPath
from motionbox.store import open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.writing.lock import store_lock
from motionbox.store.writing.runs import prepare_store
from store_oracle import check_complete, check_consistency, fingerprint, whole_fingerprint
from store_support import SIDE, small_config

VIDEOS = {"a": "14@4", "b": "error not_a_video", "e": "10@4!6"}
CONFIG = small_config(**{"store.clips": "jpeg", "frames.short_side_px": SIDE})
_TIMEOUT_SECONDS = 500.0
REFUSED = 2
"""How a session ends that finds the store in use."""


def wait(process: int) -> int:
    """Return a process's exit code; see `fault_harness.wait`."""
    return fault_harness.wait(process, _TIMEOUT_SECONDS)


class BucketStage(Stage):
    """A store under test in a bucket."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        super().__init__(root, videos=VIDEOS)
        self.bucket = bucket
        self.part = f"{root.name}/"
        self.store = ObjectPath(f"s3://{BUCKET}", root.name)
        self._patient = True

    def session(self, *, fault: str | None = None, stop_after: int | None = None, **_: object) -> int:
        """Do what `motionbox extract` does, under the store's lease."""
        os.environ.update(self.bucket.environment())
        try:
            prepare_store(self.store)
            with store_lock(self.store) as lease:
                self.lost = lease.lost
                return super().session(fault=fault, stop_after=stop_after, config=CONFIG)
        except StoreError as error:
            return REFUSED if "is in use by" in str(error) else FAILED
        except OSError:
            return FAILED

    def forced(self) -> int:
        """Do the same without asking for the lease."""
        os.environ.update(self.bucket.environment())
        return super().session(config=CONFIG)

    def ask(self, function: Callable[[], object]) -> object:
        """Return what a function gives that reads the bucket, in a process of its own."""
        answer = self.root / "answer.json"
        answer.unlink(missing_ok=True)

        def work() -> int:
            os.environ.update(self.bucket.environment(sound=True))
            answer.write_text(json.dumps(function()))
            return DONE

        code = wait(fork(work))
        return json.loads(answer.read_text()) if code == DONE else [f"the oracle ended with {code}"]


@dataclass(frozen=True)
class Expected:
    """What an uninterrupted run gives: see `fault_harness.Expected`."""

    digest: str
    fingerprint: str
    num_opened: int
    num_requests: int


def reference(bucket: Bucket, root: Path) -> Expected:
    """Return what an uninterrupted run gives."""
    stage = BucketStage(bucket, root)
    bucket.watch(stage.part)
    assert wait(fork(stage.session)) == DONE

    def look() -> list[str]:
        with open_store(stage.store) as store:
            return [store.info["content_digest"], whole_fingerprint(store)]

    requests = bucket.seen(stage.part)
    digest, seen = stage.ask(look)
    return Expected(digest, seen, len(stage.processed()), sum(requests.values()))


def run_trial(bucket: Bucket, root: Path, fault: Fault, expected: Expected) -> Outcome:
    """Plant one fault, resume, and judge."""
    outcome = Outcome(fault)
    try:
        _trial(BucketStage(bucket, root), fault, expected, outcome)
    except TimeoutError as error:
        outcome.violations.append(str(error))
    return outcome


def _trial(stage: BucketStage, fault: Fault, expected: Expected, outcome: Outcome) -> None:
    rng = random.Random(fault.seed)
    if fault.partial >= 0:
        code = wait(fork(lambda: stage.session(stop_after=fault.partial)))
        if code not in (INTERRUPTED, DONE):
            outcome.violations.append(f"the session before the fault ended with {code}")
    reader = _Reader(stage) if fault.partial >= 1 else None
    _PLANTERS[fault.kind](stage, fault, rng, expected, outcome)
    stage.bucket.mend(stage.part)
    outcome.violations += stage.ask(lambda: check_consistency(stage.store))
    stage.marker.touch()
    _resume(stage, outcome)
    outcome.violations += stage.ask(lambda: check_complete(stage.store, expected.digest, len(VIDEOS)))
    if reader is not None:
        outcome.violations += reader.differences()

    def look() -> str:
        with open_store(stage.store) as store:
            return whole_fingerprint(store)

    if stage.ask(look) != expected.fingerprint:
        outcome.violations.append("a reader sees something else than after an uninterrupted run")
    outcome.redone = len(stage.processed()) - expected.num_opened


def _resume(stage: BucketStage, outcome: Outcome) -> None:
    """Run the same command until it is not refused: a killed holder's lease must run out first."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        code = wait(fork(stage.session))
        if code != REFUSED or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    if code != DONE:
        outcome.violations.append(f"the resuming session ended with {code}")


class _Reader:
    """A process that holds a snapshot open meanwhile, and looks again in the end."""

    def __init__(self, stage: BucketStage) -> None:
        self._result = stage.root / "reader.json"
        self._go, self._end = os.pipe()
        self._process = fork(lambda: self._read(stage))

    def _read(self, stage: BucketStage) -> int:
        os.close(self._end)
        os.environ.update(stage.bucket.environment(sound=True))
        try:
            reader = open_store(stage.store)
        except StoreError:
            self._result.write_text("[]")
            return DONE
        before = fingerprint(reader)
        os.read(self._go, 1)
        remove(find_garbage(stage.store))
        same = fingerprint(reader) == before
        self._result.write_text(json.dumps([] if same else ["a reader saw its snapshot change"]))
        return DONE

    def differences(self) -> list[str]:
        os.close(self._go)
        os.close(self._end)
        if wait(self._process) != DONE:
            return ["a reader broke"]
        return list(json.loads(self._result.read_text()))


def _plant_failpoint(
    stage: BucketStage, fault: Fault, rng: random.Random, expected: Expected, outcome: Outcome
) -> None:
    process = fork(lambda: stage.session(fault=fault.detail))
    if fault.detail.endswith("hang"):
        fault_harness._kill_when(process, stage.marker.exists, outcome)
    code = wait(process)
    outcome.struck = stage.marker.exists()
    if code not in (DONE, INTERRUPTED, FAILED, KILLED):
        outcome.violations.append(f"the session ended with {code}")


def _plant_request(stage: BucketStage, fault: Fault, rng: random.Random, expected: Expected, outcome: Outcome) -> None:
    """Break some requests of a session: `<kind>:<count>`, or `<kind>:<count>:<method>:<part of the path>`."""
    kind, count, *where = fault.detail.split(":")
    narrowed = dict(zip(("method", "only"), where, strict=False))
    nth = rng.randint(1, expected.num_requests if not where else 12 if kind == "lag" else 1)
    stage.bucket.plant(stage.part, kind, nth, int(count), **narrowed)
    code = wait(fork(stage.session))
    outcome.struck = stage.bucket.seen(stage.part).get("broken", 0) > 0
    # Where no listing shows the newest lease, the store looks as if it were in use.
    if code not in ((DONE, INTERRUPTED, FAILED, REFUSED) if kind == "lag" else (DONE, INTERRUPTED, FAILED)):
        outcome.violations.append(f"the session ended with {code}")


def _plant_kill(stage: BucketStage, fault: Fault, rng: random.Random, expected: Expected, outcome: Outcome) -> None:
    process = fork(stage.session)
    time.sleep(rng.uniform(0.0, float(fault.detail)))
    outcome.struck = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    os.kill(process, signal.SIGKILL)
    wait(process)


def _plant_race(stage: BucketStage, fault: Fault, rng: random.Random, expected: Expected, outcome: Outcome) -> None:
    wait(fork(lambda: _prepare(stage)))
    race(stage.forced, fault, rng, outcome, wait)


def _prepare(stage: BucketStage) -> int:
    os.environ.update(stage.bucket.environment(sound=True))
    prepare_store(stage.store)
    return DONE


def _plant_sleeper(stage: BucketStage, fault: Fault, rng: random.Random, expected: Expected, outcome: Outcome) -> None:
    """A driver falls asleep; another takes the store over after its lease, is done, and then the first wakes up."""
    process = fork(stage.session)
    time.sleep(rng.uniform(0.1, float(fault.detail)))
    os.kill(process, signal.SIGSTOP)
    outcome.struck = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    _resume(stage, outcome)
    os.kill(process, signal.SIGCONT)
    code = wait(process)
    if code not in (DONE, INTERRUPTED, FAILED):
        outcome.violations.append(f"the driver that woke up ended with {code}")


_PLANTERS: dict[str, Callable[[BucketStage, Fault, random.Random, Expected, Outcome], None]] = {
    "failpoint": _plant_failpoint,
    "request": _plant_request,
    "kill": _plant_kill,
    "race": _plant_race,
    "sleeper": _plant_sleeper,
}


def main() -> None:
    """Do the trials that standard input asks for."""
    asked = json.load(sys.stdin)
    bucket, root = Bucket(asked["port"], asked["sound_port"]), Path(asked["root"])
    expected = reference(bucket, root / f"{root.name}-reference")

    def trial(entry: tuple[int, dict]) -> Outcome:
        number, fault = entry
        stage = root / f"{root.name}-{number:04x}"
        outcome = run_trial(bucket, stage, Fault(**fault), expected)
        shutil.rmtree(stage, ignore_errors=True)
        return outcome

    with ThreadPoolExecutor(asked["at_once"]) as pool:
        started = [pool.submit(trial, entry) for entry in enumerate(asked["faults"])]
        for outcome in (future.result() for future in as_completed(started)):
            print(json.dumps(asdict(outcome)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
