"""Blocks that are fetched before they are asked for: which, in which order, how many, and whose failure it is."""

import os
import threading
from collections.abc import Callable, Generator

import pytest

from motionbox.errors import ClipError, Reason
from motionbox.store.reading.ahead import MOST_BLOCKS, Block, BlocksAhead


class Units:
    """Files of units: a block's content is its name, and reading waits until it is let through."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.broken: set[int] = set()
        self.open = threading.Event()
        self.open.set()

    def reader_of(self, unit: int) -> Callable[[int, int], bytes]:
        self.begun.append(unit)

        def read(offset: int, num_bytes: int) -> bytes:
            self.open.wait()
            if unit in self.broken:
                raise ClipError(Reason.UNREADABLE, f"unit {unit} is broken")
            return f"{unit} {offset} {num_bytes}".encode()

        return read


@pytest.fixture
def units() -> Generator[Units]:
    made = Units()
    yield made
    made.open.set()


def blocks(*numbers: int, size: int = 10) -> list[Block]:
    return [(number, 7, size) for number in numbers]


def test_blocks_are_begun_in_their_order_and_come_as_they_are(units: Units) -> None:
    ahead = BlocksAhead(units.reader_of)
    ahead.announce(blocks(3, 1, 2), keep=0)
    assert units.begun == [3, 1, 2]
    assert [ahead.take(block) for block in blocks(1, 3, 2)] == [b"1 7 10", b"3 7 10", b"2 7 10"]
    assert ahead.take((3, 7, 10)) is None, "asked for once more than announced"
    assert ahead.take((4, 7, 10)) is None, "never announced"


def test_no_more_bytes_are_begun_than_there_is_room_for(units: Units) -> None:
    ahead = BlocksAhead(units.reader_of, most_bytes=25)
    ahead.announce(blocks(0, 1), keep=1)
    ahead.announce(blocks(2, 3, 4), keep=1)
    assert units.begun == [0, 1]
    assert ahead.take((0, 7, 10)) == b"0 7 10"
    assert units.begun == [0, 1, 2], "what is taken makes room for the next"
    ahead.announce([(5, 7, 100)], keep=0)
    assert units.begun == [0, 1, 2, 5], "nothing before it is left, and one is begun however large it is"
    assert ahead.take((5, 7, 100)) == b"5 7 100"


def test_no_more_blocks_are_begun_than_a_process_that_ends_can_wait_for(units: Units) -> None:
    ahead = BlocksAhead(units.reader_of)
    ahead.announce(blocks(*range(200), size=1), keep=0)
    assert units.begun == list(range(MOST_BLOCKS))
    assert [ahead.take((number, 7, 1)) for number in range(200)] == [f"{number} 7 1".encode() for number in range(200)]


def test_a_block_that_waits_for_room_is_read_by_who_asks_for_it(units: Units) -> None:
    ahead = BlocksAhead(units.reader_of, most_bytes=10)
    ahead.announce(blocks(0, 1, 2), keep=0)
    assert ahead.take((1, 7, 10)) is None
    assert ahead.take((0, 7, 10)) == b"0 7 10"
    assert units.begun == [0, 2], "nobody waits for 1 any more"


def test_a_block_that_two_wait_for_is_fetched_once(units: Units) -> None:
    ahead = BlocksAhead(units.reader_of, most_bytes=20)
    ahead.announce(blocks(0, 1, 0), keep=1)
    ahead.announce(blocks(0, 2), keep=1)
    assert [ahead.take((0, 7, 10)) for _ in range(4)] == [b"0 7 10"] * 3 + [None]
    assert units.begun == [0, 1, 2]


def test_what_was_announced_long_ago_is_let_go(units: Units) -> None:
    units.open.clear()
    ahead = BlocksAhead(units.reader_of, most_bytes=40)
    ahead.announce(blocks(0, 1), keep=1)
    ahead.announce(blocks(1, 2, 3), keep=1)
    ahead.announce(blocks(4, 5), keep=1)
    assert units.begun == [0, 1, 2, 3, 4], "0 left room for one more"
    assert ahead.take((0, 7, 10)) is None
    units.open.set()
    assert [ahead.take(block) for block in blocks(1, 2, 3, 4, 5)] == [f"{n} 7 10".encode() for n in (1, 2, 3, 4, 5)]


def test_a_failure_is_that_of_who_asks_for_the_block_and_not_of_the_next(units: Units) -> None:
    units.broken.add(1)
    ahead = BlocksAhead(units.reader_of)
    ahead.announce(blocks(0, 1, 2, 1), keep=0)
    assert ahead.take((0, 7, 10)) == b"0 7 10"
    with pytest.raises(ClipError, match="unit 1 is broken"):
        ahead.take((1, 7, 10))
    assert ahead.take((2, 7, 10)) == b"2 7 10"
    assert ahead.take((1, 7, 10)) is None, "the second one tries for itself"


def test_after_the_end_nothing_begins(units: Units) -> None:
    units.open.clear()
    ahead = BlocksAhead(units.reader_of, most_bytes=20)
    ahead.announce(blocks(0, 1, 2), keep=0)
    ahead.close()
    assert ahead.take((0, 7, 10)) is None
    units.open.set()
    ahead.announce(blocks(3), keep=0)  # a store that was closed can still be read
    assert ahead.take((3, 7, 10)) == b"3 7 10"
    assert units.begun == [0, 1, 3]


def test_a_forked_process_waits_for_no_thread_of_its_parent(units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = BlocksAhead(units.reader_of)
    units.open.clear()
    ahead.announce(blocks(0), keep=0)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert ahead.take((0, 7, 10)) is None
    units.open.set()
    ahead.announce(blocks(1), keep=5)
    assert ahead.take((1, 7, 10)) == b"1 7 10"
    assert ahead.take((0, 7, 10)) is None
