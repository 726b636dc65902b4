"""The bounded local cache: what it must never do is hold more than it may, or give somebody half a file."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from motionbox.storage.local_cache import LocalCache, NoRoomError, make_work_folder, remove_work_folder


def _writes(data: bytes, calls: list[bytes] | None = None) -> Callable[[int], None]:
    def fill(descriptor: int) -> None:
        if calls is not None:
            calls.append(data)
        os.pwrite(descriptor, data, 0)

    return fill


def _never(_descriptor: int) -> None:
    raise AssertionError("filled again")


def test_an_entry_is_filled_once_and_found_again(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 100)
    with cache.hold("a", 3, _writes(b"abc")) as path:
        assert path.read_bytes() == b"abc"
    with LocalCache(tmp_path / "cache", 100).hold("a", 3, _never) as path:
        assert path.read_bytes() == b"abc"


def test_the_longest_unused_entry_makes_room_and_one_in_use_never_does(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 100)
    used = cache.hold("used", 40, _writes(b"u" * 40))
    for number, name in enumerate(("old", "new")):
        cache.hold(name, 30, _writes(b"x" * 30)).release()
        os.utime(tmp_path / name, (number, number))
    os.utime(used.path, (0, 0))  # the longest unused, were it not in use
    with cache.hold("more", 30, _writes(b"m" * 30)):
        assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["more", "new", "used"]
        assert cache.num_bytes() == 100
    used.release()


def test_where_all_is_in_use_one_waits_or_is_told(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 100)
    first = cache.hold("first", 60, _writes(b"1" * 60))
    with pytest.raises(NoRoomError, match="no room now"):
        cache.hold("second", 60, _writes(b"2" * 60))
    waits = 0

    def waiting() -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            first.release()

    with cache.hold("second", 60, _writes(b"2" * 60), waiting=waiting) as path:
        assert path.read_bytes() == b"2" * 60
    assert waits == 2
    assert not (tmp_path / "first").exists()


def test_an_entry_larger_than_the_cache_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoRoomError, match="101 bytes are more than the 100"):
        LocalCache(tmp_path, 100).hold("a", 101, _never, waiting=lambda: pytest.fail("waited"))


def test_removed_when_let_go_unless_another_still_uses_it(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 100)
    one, two = cache.hold("a", 3, _writes(b"abc")), cache.hold("a", 3, _never)
    one.release(remove=True)
    assert two.path.read_bytes() == b"abc"
    two.release(remove=True)
    assert not two.path.exists()
    two.release()  # once more harms nobody


def test_a_fill_that_fails_leaves_nothing_and_the_next_one_fills(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 100)

    def breaks(descriptor: int) -> None:
        os.pwrite(descriptor, b"half", 0)
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError, match="cut"):
        cache.hold("a", 8, breaks)
    assert cache.num_bytes() == 0
    with cache.hold("a", 8, _writes(b"wholefil")) as path:
        assert path.read_bytes() == b"wholefil"


def test_many_threads_that_want_the_same_fill_it_once(tmp_path: Path) -> None:
    cache, calls = LocalCache(tmp_path, 100), []

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        os.pwrite(descriptor, b"a", 0)
        time.sleep(0.1)
        os.pwrite(descriptor, b"bc", 1)

    def read(_number: int) -> bytes:
        with cache.hold("a", 3, slow, waiting=lambda: None) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {b"abc"}
    assert len(calls) == 1


_USE_OFTEN = """
import sys
from pathlib import Path
from motionbox.storage.local_cache import LocalCache
import os
cache, most = LocalCache(Path(sys.argv[1]), 100), 0
for step in range(40):
    text = f"e{(step * 7 + int(sys.argv[2])) % 9}"
    with cache.hold(text, 30, lambda file: os.pwrite(file, text.encode() * 15, 0), waiting=lambda: None) as path:
        assert path.read_bytes() == text.encode() * 15
        most = max(most, cache.num_bytes())
print(most)
"""
_DIE_FILLING = """
import os, sys
from pathlib import Path
from motionbox.storage.local_cache import LocalCache
LocalCache(Path(sys.argv[1]), 100).hold("a", 90, lambda _file: os._exit(9))
"""


def _process(code: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_processes_that_share_it_never_hold_more_than_it_may(tmp_path: Path) -> None:
    users = [_process(_USE_OFTEN, str(tmp_path), str(seed)) for seed in range(3)]
    mosts = [int(user.communicate(timeout=60)[0]) for user in users]
    assert 60 <= max(mosts) <= 100


def test_what_a_killed_process_left_half_filled_is_no_entry_and_takes_no_room(tmp_path: Path) -> None:
    user = _process(_DIE_FILLING, str(tmp_path))
    user.communicate(timeout=60)
    assert user.returncode == 9
    cache = LocalCache(tmp_path, 100)
    assert cache.num_bytes() == 90  # it is still there, but nobody's
    with cache.hold("b", 50, _writes(b"b" * 50)), cache.hold("a", 50, _writes(b"a" * 50)) as path:
        assert path.read_bytes() == b"a" * 50


def test_clear_removes_what_nobody_uses(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 100)
    kept = cache.hold("kept", 10, _writes(b"k" * 10))
    cache.hold("gone", 10, _writes(b"g" * 10)).release()
    cache.clear()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["kept"]
    kept.release()
    LocalCache(tmp_path / "absent", 1).clear()
    assert not (tmp_path / "absent").exists()


def test_another_thread_may_wait_for_one_that_fills(tmp_path: Path) -> None:
    cache, begun, go = LocalCache(tmp_path, 10), threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        go.wait(20)
        os.pwrite(descriptor, b"abc", 0)

    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(cache.hold, "a", 3, slow)
        assert begun.wait(20)
        with cache.hold("a", 3, _never, waiting=go.set) as path:
            assert path.read_bytes() == b"abc"
        filling.result().release()


_DIE_AT_WORK = """
import os
from motionbox.storage.local_cache import make_work_folder
(make_work_folder() / "half.bin").write_bytes(b"h")
os._exit(9)
"""


def test_work_folders_of_dead_processes_are_removed_and_those_of_living_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTIONBOX_SCRATCH", str(tmp_path))
    mine = make_work_folder()
    (mine / "mine.bin").write_bytes(b"m")
    user = _process(_DIE_AT_WORK)
    user.communicate(timeout=60)
    assert user.returncode == 9
    assert len(list((tmp_path / "work").glob("[!.]*"))) == 2
    cache = LocalCache(tmp_path, 10)
    cache.hold("video", 10, _writes(b"v" * 10)).release()  # work takes no room of the videos
    other = make_work_folder()
    assert sorted((tmp_path / "work").glob("[!.]*")) == sorted([mine, other])
    assert (mine / "mine.bin").read_bytes() == b"m"
    for folder in (mine, other, mine):
        remove_work_folder(folder)
    assert list((tmp_path / "work").glob("[!.]*")) == []
