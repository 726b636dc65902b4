"""`extract --retry-failed`: failed videos are done again, what was seen stays to be seen, and nothing else moves."""

from pathlib import Path

import pytest

from motionbox.errors import StoreError
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.executors import Executor
from motionbox.extraction.plan import scan_inputs
from motionbox.extraction.progress import PlainReporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.store import open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.writing.retry import Retry, retry_failed
from motionbox.store.writing.runs import Run, RunInputs, load_run
from motionbox.video.frames import WHOLE
from store_support import NumberSource, make_run, number_executor, number_videos, small_config

GOOD = {"a": "60@25", "b": "30@25", "c": "500@25"}


def write(root: Path, **videos: str) -> None:
    for name, text in videos.items():
        (root / f"{name}.num").write_text(text)


def inputs_of(root: Path) -> RunInputs:
    manifest = number_videos(root, dict.fromkeys(GOOD, ""))
    return RunInputs("folder", root, manifest, scan_inputs(root, manifest["path"].to_pylist()), small_config())


def extract(store: Path, root: Path, executor: Executor | None = None) -> Run:
    """Create or resume the run, do what is left of it and publish a snapshot."""
    run = make_run(store, root, inputs_of(root).manifest, max_frames=100)
    drive(run, executor or number_executor(), EngineOptions(), PlainReporter())
    make_snapshot(run)
    return run


def statuses(store: Path) -> dict[str, str]:
    return {row["clip_id"]: row["status"] for row in open_store(store).clips().to_pylist()}


def digest(store: Path) -> str:
    return str(open_store(store).info["content_digest"])


@pytest.fixture
def wanted(tmp_path: Path) -> str:
    """The digest of a store whose videos were whole from the start."""
    number_videos(tmp_path / "whole", GOOD)
    extract(tmp_path / "wanted", tmp_path / "whole")
    return digest(tmp_path / "wanted")


@pytest.mark.parametrize("broken", ["error not_a_video", "error crashed", "60@25!20"])
def test_replaced_files_of_failed_videos_join_the_run(tmp_path: Path, wanted: str, broken: str) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "a": broken})
    first = extract(store, root)
    assert statuses(store)["a"] in ("failed", "partial")
    committed = first.paths.committed_units()
    write(root, a=GOOD["a"])
    with pytest.raises(StoreError, match=r"1 input file changed: a\.num"):
        extract(store, root)
    assert retry_failed(store, inputs_of(root)) == Retry(("a",), 1, 1)
    again = extract(store, root)
    assert (again.run_id, again.paths.committed_units()) == (first.run_id, committed)
    assert statuses(store) == dict.fromkeys(GOOD, "ok")
    assert digest(store) == wanted
    assert extract(store, root).run_id == first.run_id  # the files that are there now are the run's
    assert [check.problem for check in verify_store(store)] == [None] * (2 + len(committed) + 1)
    assert not list(first.paths.failures.iterdir())


def test_a_long_video_is_done_again_whole(tmp_path: Path, wanted: str) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "c": "500@25!400"})
    extract(store, root)
    write(root, c=GOOD["c"])
    assert retry_failed(store, inputs_of(root)).num_units > 1
    extract(store, root)
    assert digest(store) == wanted


def test_a_fault_that_was_the_machines_is_forgotten(tmp_path: Path) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "b": "error timeout"})
    extract(store, root)
    assert statuses(store)["b"] == "failed"
    stamp = (root / "b.num").stat()

    class Mended(NumberSource):
        def open(self, path: Path, span=WHOLE):
            text = path.with_name("b2.num") if path.name == "b.num" else path
            return super().open(text, span)

    (root / "b2.num").write_text(GOOD["b"])
    extract(store, root, number_executor(Mended()))
    assert statuses(store)["b"] == "failed"  # quarantined: not tried without being asked
    assert retry_failed(store, inputs_of(root)) == Retry(("b",), 1, 0)
    assert (root / "b.num").stat() == stamp
    extract(store, root, number_executor(Mended()))
    assert statuses(store) == dict.fromkeys(GOOD, "ok")


def test_files_of_good_videos_are_not_taken_over(tmp_path: Path) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "a": "error not_a_video"})
    run = extract(store, root)
    before = digest(store)
    write(root, a=GOOD["a"], b="31@25  ")
    assert retry_failed(store, inputs_of(root)) == Retry((), 0, 0)
    with pytest.raises(StoreError, match=r"2 input files changed: a\.num, b\.num"):
        extract(store, root)
    assert (digest(store), load_run(run.paths).info) == (before, run.info)
    assert [check.problem for check in verify_store(store) if check.problem] == []


def test_readers_see_the_old_snapshot_until_the_new_one_is_there(tmp_path: Path) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "a": "60@25!20"})
    run = extract(store, root)
    old, partial = digest(store), open_store(store)
    write(root, a=GOOD["a"])
    retry_failed(store, inputs_of(root))
    remove(find_garbage(store))
    assert digest(store) == old
    assert len(partial.frame_boxes("a")) == 20
    assert partial.motion_maps("a").any()  # of the attempt whose commit was taken back
    assert [check.problem for check in verify_store(store) if check.problem] == []
    extract(store, root)
    assert len(open_store(store).frame_boxes("a")) == 60
    remove(find_garbage(store))
    assert [check.problem for check in verify_store(store) if check.problem] == []
    assert len(list(run.paths.attempts.rglob("frames.parquet"))) >= len(run.paths.committed_units())


def test_gc_removes_records_of_attempts_that_no_snapshot_shows(tmp_path: Path) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, {**GOOD, "a": "60@25!20"})
    run = extract(store, root)
    for frames in (30, 60):
        write(root, a=f"60@25!{frames}" if frames < 60 else GOOD["a"])
        retry_failed(store, inputs_of(root))
        extract(store, root)
    retired = run.paths.retired_commits
    assert len(list(retired.iterdir())) == 2
    remove(find_garbage(store, keep_snapshots=2))
    assert len(list(retired.iterdir())) == 1  # snapshot 2 shows the attempt of the second record
    assert [check.problem for check in verify_store(store) if check.problem] == []
    why = {entry.path: entry.why for entry in find_garbage(store)}
    assert why[retired] == "records of attempts that no snapshot shows"
    remove(find_garbage(store))
    assert not retired.exists()
    assert find_garbage(store) == []
    assert [check.problem for check in verify_store(store) if check.problem] == []


def test_where_nothing_failed_nothing_is_done(tmp_path: Path) -> None:
    root, store = tmp_path / "videos", tmp_path / "store"
    number_videos(root, GOOD)
    run = extract(store, root)
    assert retry_failed(store, inputs_of(root)) == Retry((), 0, 0)
    assert run.paths.committed_units() == load_run(run.paths).paths.committed_units()


def test_a_store_of_yet_no_run_has_nothing_to_retry(tmp_path: Path) -> None:
    number_videos(tmp_path / "videos", GOOD)
    assert retry_failed(tmp_path / "store", inputs_of(tmp_path / "videos")) == Retry((), 0, 0)
