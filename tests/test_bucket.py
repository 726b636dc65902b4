"""Stores in object storage: every command on one, how many requests a unit takes, and what can be wrong with a bucket.

Whatever uses obstore runs in a process of its own, because its threads do not survive the forks of other tests.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty_bucket import BUCKET, Bucket, running_bucket

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("obstore")

_COMMANDS = """
import contextlib, io, json, sys
from motionbox.cli import main

results = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stop:
            code = stop.code
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""
_SESSION = """
import os, sys
from pathlib import Path
import bucket_trials
from faulty_bucket import BUCKET, Bucket
from motionbox.store import open_store

bucket, root = Bucket(*map(int, sys.argv[1:3])), Path(sys.argv[3])
print(bucket_trials.reference(bucket, root).num_requests)
os.environ.update(bucket.environment(), MOTIONBOX_CACHE_DIR=str(root / "cache"))
for _ in range(2):
    before = sum(bucket.seen("counted/").values())
    open_store(f"s3://{BUCKET}/counted").close()
print(sum(bucket.seen("counted/").values()) - before)
"""
_QUICK = ["--preset", "tuned", "--workers", "0", "--flow", "dis"]
_POSTER = re.compile(r"data:image/webp;base64,[^\"']*")
Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with running_bucket() as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a generated data set of one clip."""
    root = tmp_path_factory.mktemp("videos") / "data"
    [(code, _, err)] = run_commands({}, ["synth", "-o", str(root), "--num-clips", "1", "--seed", "5"])
    assert code == 0, err
    return root


def run_commands(variables: dict[str, str], *commands: list[str]) -> list[Result]:
    """Return exit code, output and messages of each command, run one after the other in a process of their own."""
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS],
        env=environment,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [(int(code or 0), out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


def extract(data: Path, store: str) -> list[str]:
    """Return the command line of an extraction in one process."""
    return ["extract", "--dataset", "synthetic", "--data-root", str(data), "--store", store, *_QUICK]


def test_every_command_takes_a_store_in_a_bucket(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    store, local = f"s3://{BUCKET}/stores/all", str(tmp_path / "store")
    boxes, same = tmp_path / "boxes.csv", tmp_path / "same.csv"
    results = run_commands(
        bucket.environment(),
        extract(data, store),
        extract(data, store),
        ["status", store],
        ["verify", store],
        ["gc", store, "--delete"],
        ["export", store, "--format", "csv", "-o", str(boxes)],
        ["evaluate", store, "--boxes", str(data / "boxes.json")],
        ["report", store, "-o", str(tmp_path / "report.html"), "--previews", "0"],
        ["import-boxes", store, "--like", "motion", "--name", "random"],
        extract(data, local),
        ["export", local, "--format", "csv", "-o", str(same)],
    )
    assert [code for code, _, _ in results] == [0] * len(results), [entry for entry in results if entry[0]]
    assert boxes.read_bytes() == same.read_bytes()  # the place makes no difference
    assert "1 of 1 committed" in results[2][1]
    assert not any("testing" in out + err for _, out, err in results)  # no secret is shown


def test_a_unit_takes_few_requests(bucket: Bucket, tmp_path: Path) -> None:
    """A unit with maps and clips has 6 files: each is put once and read back once, and a snapshot reads 5 of them.

    With its record (put, and read for the snapshot), one listing each of its faults and of retired records, and the
    removal of its sign of life, that is 22 requests, and one for the sign of life of every video that it begins.
    """
    for part in ("/attempts/u000000/", "/commits/u000000", "/failures/u000000"):
        bucket.watch(part)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _SESSION, str(bucket.port), str(bucket.sound_port), str(tmp_path / "counted")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = bucket.seen("/attempts/u000000/")
    assert seen == {"PUT": 6 + 1, "GET": 6 + 5}  # it has one video
    assert bucket.seen("/commits/u000000") == {"PUT": 1, "GET": 1}
    assert bucket.seen("/failures/u000000") == {"GET": 1}
    whole, opened = map(int, done.stdout.split())
    assert whole <= 170
    assert opened == 6  # from the cache


def test_rights_that_end_in_mid_run_leave_it_resumable(bucket: Bucket, data: Path) -> None:
    store = f"s3://{BUCKET}/stores/expiring"
    bucket.plant("stores/expiring", "expired", 1, 10**6, only="/attempts/")
    [(code, _, err)] = run_commands(bucket.environment(), extract(data, store))
    assert code == 75
    assert (
        "the credentials are not accepted (ExpiredToken: The provided token has expired.); renew them"
        in err.splitlines()[-1]
    )
    bucket.mend("stores/expiring")
    assert [code for code, _, _ in run_commands(bucket.environment(), extract(data, store), ["verify", store])] == [
        0,
        0,
    ]


def test_what_is_wrong_with_a_bucket_is_one_line(bucket: Bucket, data: Path) -> None:
    bucket.plant("stores/denied", "denied", 1, 10**6)
    bucket.plant("stores/blind", "blind", 1, 10**6)
    strangers = (
        "import obstore; from obstore.store import S3Store; "
        f"S3Store('{BUCKET}', client_options={{'allow_http': True}}).put('stores/others/x.csv', b'theirs')"
    )
    environment = {**os.environ, **bucket.environment()}
    subprocess.run([sys.executable, "-c", strangers], env=environment, check=True)
    lines = {
        "s3://no-such-bucket/x": "there is no bucket 'no-such-bucket'",
        f"s3://{BUCKET}/stores/denied": "access denied (",
        f"s3://{BUCKET}/stores/blind": "lies in a bucket that ignores conditional puts",
        f"s3://{BUCKET}/stores/others": "is a directory with other files in it",
    }
    results = run_commands(bucket.environment(), *(extract(data, store) for store in lines))
    for (store, words), (code, _, err) in zip(lines.items(), results, strict=True):
        last = err.splitlines()[-1]
        assert code == 2, (store, err)
        assert words in last, err
        assert store in last, err
        assert "Traceback" not in err


def test_a_bucket_with_versions_is_as_good(bucket: Bucket, data: Path) -> None:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{bucket.sound_port}", **keys)
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = "s3://versioned/store"
    results = run_commands(bucket.environment(), extract(data, store), ["verify", store], ["gc", store, "--delete"])
    assert [code for code, _, _ in results] == [0, 0, 0], results


def test_clips_are_drawn_alike_wherever_store_and_videos_lie(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    """Also where the videos were somewhere else at extraction; nothing stays in scratch."""
    videos, store, local = f"s3://{BUCKET}/videos", f"s3://{BUCKET}/stores/drawn", str(tmp_path / "store")
    upload = (
        "import sys; from pathlib import Path; import obstore; from obstore.store import from_url\n"
        "store = from_url(sys.argv[1], client_options={'allow_http': True})\n"
        "for path in Path(sys.argv[2]).rglob('*'):\n"
        "    if path.is_file(): obstore.put(store, path.relative_to(sys.argv[2]).as_posix(), path)"
    )
    scratch = tmp_path / "scratch"
    variables = {**bucket.environment(), "MOTIONBOX_SCRATCH": str(scratch)}
    subprocess.run([sys.executable, "-c", upload, videos, str(data)], env={**os.environ, **variables}, check=True)
    clip = "videos/00000"

    def draw(place: str, name: str, *options: str) -> list[list[str]]:
        show = ["show", place, clip, "--still", "-o", str(tmp_path / f"{name}.png"), *options]
        return [show, ["report", place, "-o", str(tmp_path / f"{name}.html"), "--previews", "1", *options]]

    results = run_commands(
        variables,
        extract(data, local),
        ["extract", "--dataset", "synthetic", "--data-root", videos, "--store", store, *_QUICK],
        *draw(local, "here"),
        *draw(store, "there"),
        *draw(local, "mixed", "--data-root", videos),
        ["show", store, clip, "--still", "-o", str(tmp_path / "gone.png"), "--data-root", f"{videos}/elsewhere"],
        ["show", store, clip, "--still", "-o", str(tmp_path / "two.png"), "--against", local],
    )
    assert [code for code, _, _ in results] == [0] * len(results), [entry for entry in results if entry[0]]
    pictures = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("here", "there", "mixed", "gone")}
    assert pictures["here"] == pictures["there"] == pictures["mixed"] != pictures["gone"]
    posters = [_POSTER.findall((tmp_path / f"{name}.html").read_text()) for name in ("here", "there", "mixed")]
    assert posters[0] == posters[1] == posters[2]
    assert len(posters[0]) == 1
    assert [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_objects_of_others_below_a_store_are_left_alone(bucket: Bucket, data: Path) -> None:
    store = f"s3://{BUCKET}/stores/shared"
    in_run = ("", "commits/", "snapshots/", "attempts/", "guidance/", "failures/")
    keys = ("notes.txt", "lease/notes.json", "runs/readme.md", *(f"{{run}}/{name}readme.md" for name in in_run))
    put = (
        "import sys; from obstore.store import S3Store\n"
        f"store = S3Store('{BUCKET}', client_options={{'allow_http': True}})\n"
        "(run,) = [found for found in store.list_with_delimiter('stores/shared/runs/')['common_prefixes']]\n"
        "run = run.removeprefix('stores/shared/').rstrip('/')\n"
        "places = [f'stores/shared/{key.replace(chr(123) + \"run\" + chr(125), run)}' for key in sys.argv[2:]]\n"
        "if sys.argv[1] == 'put': [store.put(place, b'theirs') for place in places]\n"
        "print([bytes(store.get(place).bytes()) for place in places] == [b'theirs'] * len(places))\n"
    )

    def ask(what: str) -> str:
        command = [sys.executable, "-c", put, what, *keys]
        environment = {**os.environ, **bucket.environment()}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert [code for code, _, _ in run_commands(bucket.environment(), extract(data, store))] == [0]
    assert ask("put") == "True"
    results = run_commands(
        bucket.environment(),
        ["status", store],
        ["verify", store],
        extract(data, store),
        ["import-boxes", store, "--like", "motion", "--name", "random"],
        ["gc", store, "--delete"],
        ["verify", store],
    )
    assert [code for code, _, _ in results] == [0] * len(results), [entry for entry in results if entry[0]]
    assert ask("look") == "True"


def test_what_cannot_be_read_is_one_line_of_every_command(bucket: Bucket) -> None:
    bucket.plant("stores/locked", "denied", 1, 10**6)
    bucket.plant("stores/skewed", "skew", 1, 10**6)
    lines = {
        "s3://no-such-bucket/x": "there is no bucket 'no-such-bucket'",
        f"s3://{BUCKET}/stores/locked": "access denied (AccessDenied",
        f"s3://{BUCKET}/stores/skewed": "this machine's clock is not the bucket's (RequestTimeTooSkewed",
        f"s3://{BUCKET}/stores/nothing": "does not exist",
    }
    commands = [[name, store] for store in lines for name in ("status", "verify", "gc")]
    for (name, store), (code, out, err) in zip(commands, run_commands(bucket.environment(), *commands), strict=True):
        assert (code, out, len(err.splitlines())) == (2, "", 1), (name, store, out, err)
        assert lines[store] in err, (name, err)
        assert store in err, (name, err)


def test_a_listing_that_comes_late_loses_nothing(bucket: Bucket, data: Path) -> None:
    """The same command finds its run and its units by their names, where no listing shows them."""
    store = f"s3://{BUCKET}/stores/late-listing"
    [(code, _, err), (_, before, _)] = run_commands(bucket.environment(), extract(data, store), ["status", store])
    assert code == 0, err
    bucket.plant("stores/late-listing", "lag", 1, 10**6, only="/runs/")
    [(code, _, err)] = run_commands(bucket.environment(), extract(data, store))
    assert code == 2, err
    assert err.splitlines()[-1].endswith("its runs: none")  # it cannot be read back
    bucket.mend("stores/late-listing")
    results = run_commands(bucket.environment(), extract(data, store), ["status", store], ["verify", store])
    assert [code for code, _, _ in results] == [0, 0, 0], results
    assert results[1][1].count("run ") == before.count("run ") == 1
    assert "1 of 1 committed" in results[1][1]


_SLEEPY = """
import sys
from motionbox.storage import lease, parse_place

store, newest, looks = parse_place(sys.argv[1]), lease._newest, []

def look(place):
    looks.append(newest(place))
    if len(looks) == 1:  # while this process sleeps, another takes the store, is done, and lets go of it
        first = lease._take(place)
        first.release()
    return looks[-1]

lease._newest = look
with lease.lease(store) as held:
    print(held.lost(), held._number)
"""


def test_who_sleeps_while_taking_a_lease_looks_again(bucket: Bucket) -> None:
    environment = {**os.environ, **bucket.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _SLEEPY, f"s3://{BUCKET}/stores/sleepy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("None 2", "")
