import errno
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from motionbox.errors import StoreError
from motionbox.extraction.work_unit import process_unit
from motionbox.storage import failpoints, files
from motionbox.store.layout import RunPaths, read_json
from motionbox.store.units import BlockRows, Piece, Unit, VideoError
from motionbox.store.writing import commit
from motionbox.store.writing.attempt import Attempt, UnitRows
from motionbox.store.writing.commit import read_commit, verify_files
from store_support import DifferenceFlow, NumberSource, number_videos, small_config


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    run = RunPaths(tmp_path / "run")
    for directory in (run.attempts, run.commits, run.failures):
        directory.mkdir(parents=True)
    return run


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("videos")
    number_videos(root, {"v": "30@25"})
    unit = Unit("u000000", (Piece("v", "v.num", None, None, 30),))
    return list(process_unit(unit, small_config(), root, NumberSource(), DifferenceFlow()))


def commit_unit(run: RunPaths, unit_id: str, rows: list[BlockRows | VideoError], **facts: float) -> bool:
    with Attempt(run, unit_id, small_config().store) as one:
        for entry in rows:
            one.add(entry)
        return one.commit(**facts)


def maps_of(rows: list[BlockRows | VideoError]) -> np.ndarray:
    unit = UnitRows(small_config().store)
    for entry in rows:
        unit.add(entry)
    return unit.tables().maps


def committed_attempt(run: RunPaths, unit_id: str) -> Path:
    return run.attempt(unit_id, read_commit(run, unit_id)["attempt"])


def files_below(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_file())


def test_commit_makes_a_unit_visible_once(paths: RunPaths, result) -> None:
    assert paths.committed_units() == []
    assert commit_unit(paths, "u000000", result, seconds=1.5)
    assert not commit_unit(paths, "u000000", result)
    assert paths.committed_units() == ["u000000"]
    record = read_commit(paths, "u000000")
    assert (record["num_frames"], record["seconds"]) == (30, 1.5)
    # the loser has removed its own attempt, the winner's files are those of the record and nothing else
    assert files_below(paths.attempts / "u000000") == sorted(f"{record['attempt']}/{name}" for name in record["files"])
    assert files_below(paths.commits) == ["u000000.json"]
    verify_files(committed_attempt(paths, "u000000"), record["files"])


def test_few_files_and_one_shard(paths: RunPaths, result) -> None:
    import zarr

    commit_unit(paths, "u000000", result)
    names = sorted(read_commit(paths, "u000000")["files"])
    assert names == [
        "blocks.parquet",
        "frames.parquet",
        "motion.zarr/maps/c/0/0/0",
        "motion.zarr/maps/zarr.json",
        "motion.zarr/zarr.json",
    ]
    array = zarr.open_group(committed_attempt(paths, "u000000") / "motion.zarr", mode="r")["maps"]
    np.testing.assert_array_equal(array[...], maps_of(result))
    assert (array.metadata.zarr_format, array.dtype) == (3, np.uint8)


@pytest.mark.parametrize("name", ["frames.parquet", "motion.zarr/maps/c/0/0/0"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_every_damage_is_found(paths: RunPaths, result, name: str, damage: str) -> None:
    commit_unit(paths, "u000000", result)
    directory = committed_attempt(paths, "u000000")
    target = directory / name
    data = bytearray(target.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
    elif damage == "truncate":
        target.write_bytes(data[:-1])
    else:
        target.unlink()
    with pytest.raises(StoreError, match=name.rsplit("/", 1)[-1]):
        verify_files(directory, read_commit(paths, "u000000")["files"])


def test_a_torn_write_is_not_published(paths: RunPaths, result, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.write_file

    def tearing(path: Path, data: bytes, *, point: str = "attempt") -> None:
        real(path, data[: len(data) // 2] if path.name == "frames.parquet" else data, point=point)

    monkeypatch.setattr(commit, "write_file", tearing)
    with pytest.raises(StoreError, match=r"frames\.parquet is damaged"):
        commit_unit(paths, "u000000", result)
    assert paths.committed_units() == []
    assert files_below(paths.root) == []


@pytest.fixture
def fault() -> Iterator[Callable[[str], None]]:
    """Plants a fault in this process, see `failpoints`."""
    yield failpoints.arm
    failpoints.arm(None)


def test_a_full_disk_publishes_nothing(paths: RunPaths, result, fault: Callable[[str], None]) -> None:
    fault("attempt.torn:2:enospc")  # half of the second file is written
    with pytest.raises(OSError, match="No space left"):
        commit_unit(paths, "u000000", result)
    assert files_below(paths.root) == []


def test_the_name_appears_with_its_whole_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.link

    def watching(source: Path, target: Path) -> None:
        seen.append((Path(source).read_bytes(), Path(target).exists()))
        real(source, target)

    monkeypatch.setattr(os, "link", watching)
    assert files.publish_file(tmp_path / "record.json", b'{"a": 1}', point="commit")
    assert seen == [(b'{"a": 1}', False)]
    assert json.loads((tmp_path / "record.json").read_bytes()) == {"a": 1}
    assert not files.publish_file(tmp_path / "record.json", b"other", point="commit")
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_files_and_directories_are_forced_to_disk_before_the_record(paths: RunPaths, result, monkeypatch) -> None:
    order: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        order.append("LINK")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    commit_unit(paths, "u000000", result)
    before, after = order[: order.index("LINK")], order[order.index("LINK") + 1 :]
    directory = committed_attempt(paths, "u000000")
    written = [directory, *directory.rglob("*"), directory.parent]
    assert {str(path) for path in written} <= set(before)
    assert after == [str(paths.commits)]


def test_a_record_that_appeared_keeps_its_files(paths: RunPaths, result, fault: Callable[[str], None]) -> None:
    """The record is there but its directory is not forced to disk: after a crash the unit may be committed."""
    fault("commit.after_link:1:eio")
    with pytest.raises(OSError, match="Input/output error"):
        commit_unit(paths, "u000000", result)
    verify_files(committed_attempt(paths, "u000000"), read_commit(paths, "u000000")["files"])


def test_an_unreadable_record_keeps_every_file(paths: RunPaths, result) -> None:
    """A damaged record may name any attempt; `motionbox verify` reports it, and nothing is removed until then."""
    paths.commit("u000000").write_text("{")
    assert not commit_unit(paths, "u000000", result)
    assert any(name.endswith("/frames.parquet") for name in files_below(paths.attempts))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system like exFAT's: no hard links."""

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
def test_commits_without_hard_links(paths: RunPaths, result) -> None:
    assert commit_unit(paths, "u000000", result, seconds=1.5)
    assert not commit_unit(paths, "u000000", result)
    assert paths.committed_units() == ["u000000"]
    record = read_commit(paths, "u000000")
    assert record["seconds"] == 1.5
    verify_files(committed_attempt(paths, "u000000"), record["files"])
    assert files_below(paths.commits) == ["u000000.json/record.json"]
    assert files_below(paths.attempts / "u000000") == sorted(f"{record['attempt']}/{name}" for name in record["files"])


@pytest.mark.usefixtures("no_links")
def test_one_of_many_writers_gets_a_name_without_hard_links(tmp_path: Path) -> None:
    """Each name is fought for by eight threads at once; a host that can link may be among them."""
    for number in range(40):
        path = tmp_path / f"{number}.json"
        with ThreadPoolExecutor(8) as pool:
            contents = [b'{"by": %d}' % writer for writer in range(8)]
            won = list(pool.map(lambda data, path=path: files.publish_file(path, data, point="run"), contents))
        assert won.count(True) == 1
        assert read_json(path) == {"by": won.index(True)}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_names_taken_with_and_without_links_exclude_each_other(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert files.publish_file(tmp_path / "linked.json", b"{}", point="run")
    link = os.link
    request.getfixturevalue("no_links")
    assert not files.publish_file(tmp_path / "linked.json", b"{}", point="run")
    assert files.publish_file(tmp_path / "wrapped.json", b"{}", point="run")
    with pytest.raises(FileExistsError):
        link(tmp_path / "linked.json", tmp_path / "wrapped.json")
