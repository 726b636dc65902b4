from pathlib import Path

import pytest
from click.testing import CliRunner

from motionbox.cli import cli
from motionbox.errors import StoreError
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.progress import create_reporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.store import open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.lock import store_lock
from motionbox.store.writing.runs import Run
from store_support import make_run, number_executor, number_videos


@pytest.fixture
def run(tmp_path: Path) -> Run:
    manifest = number_videos(tmp_path / "videos", {"a": "60@25", "b": "300@25", "c": "error not_a_video"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, max_frames=100)
    drive(run, number_executor(), EngineOptions(), create_reporter())
    make_snapshot(run)
    return run


def store_of(run: Run) -> Path:
    return run.paths.root.parent.parent


def problems(run: Run) -> dict[str, str]:
    return {check.name: check.problem for check in verify_store(store_of(run)) if check.problem}


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    assert result.exception is None, result.exception
    return int(result.return_value or 0), result.output


def test_a_sound_store(run: Run) -> None:
    assert problems(run) == {}
    code, text = call("verify", store_of(run))
    assert (code, "are as they were written" in text) == (0, True)


def test_damage_is_named(run: Run) -> None:
    unit_id = run.paths.committed_units()[1]
    target = run.paths.attempt(unit_id, read_commit(run.paths, unit_id)["attempt"]) / "frames.parquet"
    target.write_bytes(target.read_bytes()[:-1])
    assert list(problems(run)) == [f"unit {unit_id}"]
    code, text = call("verify", store_of(run))
    assert (code, f"damaged: unit {unit_id}" in text, "remedy" in text) == (3, True, True)
    (run.paths.snapshots / "1" / "boxes.npy").unlink()
    assert set(problems(run)) == {f"unit {unit_id}", "snapshot 1"}
    run.paths.commit(unit_id).write_text("{")
    assert "readable JSON" in problems(run)[f"unit {unit_id}"]


def test_a_healed_unit_has_the_same_content(run: Run) -> None:
    before = open_store(store_of(run)).info["content_digest"]
    run.paths.commit(run.paths.committed_units()[0]).unlink()
    drive(run, number_executor(), EngineOptions(), create_reporter())
    assert "not committed" in problems(run)["snapshot 1"]
    assert make_snapshot(run) == 2
    assert open_store(store_of(run)).info["content_digest"] == before


def test_gc_removes_only_what_nothing_refers_to(run: Run) -> None:
    store = store_of(run)
    assert find_garbage(store) == []
    lost = run.paths.attempt("u000000", "dead")
    lost.mkdir()
    (lost / "frames.parquet").write_bytes(b"x" * 1000)
    (run.paths.commits / ".u000009.json.tmp").write_text("{")
    (run.paths.attempts / "u000000" / "working-1").write_text("")
    (store / "runs" / ".half").mkdir()
    found = {entry.path.name: entry for entry in find_garbage(store)}
    assert set(found) == {"dead", ".u000009.json.tmp", "working-1", ".half"}
    assert found["dead"].num_bytes == 1000
    code, text = call("gc", store)
    assert (code, "4 things" in text, lost.exists()) == (0, True, True)
    call("gc", store, "--delete")
    assert not lost.exists()
    assert find_garbage(store) == []
    assert problems(run) == {}


def test_gc_leaves_the_snapshots_that_readers_pin(run: Run) -> None:
    store = store_of(run)
    with open_store(store) as reader:
        run.paths.commit("u000000").unlink()
        drive(run, number_executor(), EngineOptions(), create_reporter())
        make_snapshot(run)
        assert [entry.path.name for entry in find_garbage(store) if entry.path.parent == run.paths.snapshots] == []
        assert reader.snapshot == 1
    remove(find_garbage(store))
    assert run.paths.snapshot_numbers() == [2]


def test_gc_that_is_killed_leaves_nothing_half_visible(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(run)
    run.paths.commit("u000000").unlink()
    drive(run, number_executor(), EngineOptions(), create_reporter())
    make_snapshot(run)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_arguments, **_options: None)
        remove(find_garbage(store))
    assert run.paths.snapshot_numbers() == [2]
    assert problems(run) == {}
    remove(find_garbage(store))
    assert find_garbage(store) == []
    assert not list(run.paths.snapshots.glob(".*"))


def test_a_run_goes_only_when_it_is_asked_to(run: Run) -> None:
    store = store_of(run)
    with open_store(store), pytest.raises(StoreError, match="held open by a reader"):
        find_garbage(store, drop_runs=[run.run_id])
    for name in ("nothing", ""):
        with pytest.raises(StoreError, match="--run must name one run of store"):
            find_garbage(store, drop_runs=[name])
    code, text = call("gc", store, "--run", run.run_id[:6])
    assert (code, "run that is not needed any more" in text, run.paths.root.exists()) == (0, True, True)
    call("gc", store, "--run", run.run_id[:6], "--delete")
    assert not list((store / "runs").iterdir())


def test_gc_is_refused_while_somebody_writes(run: Run) -> None:
    with store_lock(store_of(run)):
        result = CliRunner().invoke(cli, ["gc", str(store_of(run))], standalone_mode=False)
    assert "in use" in str(result.exception)


def test_status_shows_units_clips_and_reasons(run: Run) -> None:
    code, text = call("status", store_of(run), "--failed")
    assert code == 0
    for line in ("units   5 of 5 committed", "1 failed, 2 ok", "reason  1 not_a_video", "failed   c"):
        assert line in text, text
    with store_lock(store_of(run)):
        assert "in use by process" in call("status", store_of(run))[1]
