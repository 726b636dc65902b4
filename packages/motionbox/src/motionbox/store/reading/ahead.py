"""Fetching the blocks of clips that will be asked for soon: in their order, so many requests and bytes at a time."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

MOST_REQUESTS = 32
"""Requests in flight of one reader."""

MOST_BYTES = 64 << 20
"""What one reader's blocks may take that are under way, or here and not asked for yet."""

MOST_BLOCKS = 2 * MOST_REQUESTS
"""How many these may be: a process that ends waits for no more of them, which counts where a network is down."""

Block = tuple[int, int, int]
"""A block's unit number, and its offset and size in the unit's file, in bytes."""


class BlocksAhead:
    """Fetches announced blocks in threads. A block that several announcements wait for is fetched once."""

    def __init__(
        self, reader_of: Callable[[int], Callable[[int, int], bytes]], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Create one with nothing announced.

        Args:
            reader_of: Unit number -> what reads a unit's file: offset, bytes -> the bytes. Called in the caller's
                thread; what it returns is called in others.
            most_bytes: A block is begun while those before it and it take no more; the first one always.
        """
        self._reader_of = reader_of
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._announced: deque[Counter[Block]] = deque()
        self._waiting: deque[Block] = deque()  # not begun yet, in their order
        self._begun: dict[Block, Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def announce(self, blocks: Iterable[Block], *, keep: int) -> None:
        """Begin to fetch blocks, behind those that were announced before.

        Args:
            blocks: In the order in which they will be asked for; one that is asked for twice stands there twice.
            keep: How many of the announcements before still hold; what was announced earlier is let go.
        """
        if self._process != os.getpid():  # threads do not live on in a forked process
            self._forget()
        wanted = list(blocks)
        self._announced.append(Counter(wanted))
        self._waiting.extend(wanted)
        while len(self._announced) > keep + 1:
            for block in self._announced.popleft():
                if not self._is_wanted(block) and (future := self._drop(block)) is not None:
                    future.cancel()
        self._begin()

    def take(self, block: Block) -> bytes | None:
        """Return a block that was begun, when it is here; None: the caller has to read it.

        Raises:
            Exception: What reading it raised; who asks for it again has to read it.
        """
        group = next((group for group in self._announced if block in group), None)
        if group is None or self._process != os.getpid():
            return None
        group[block] -= 1
        if not group[block]:
            del group[block]
        future = self._begun.get(block)
        if not self._is_wanted(block):
            self._drop(block)
        self._begin()
        if future is None:
            return None
        try:
            return future.result()
        except Exception:
            self._drop(block)
            raise

    def close(self) -> None:
        """Let go of everything: what is under way ends, nothing more begins."""
        pool = self._pool if self._process == os.getpid() else None
        self._forget()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        self._announced.clear()
        self._waiting.clear()
        self._begun, self._num_bytes = {}, 0
        self._pool, self._process = None, os.getpid()

    def _begin(self) -> None:
        while self._waiting:
            block = unit, offset, num_bytes = self._waiting[0]
            if block not in self._begun and self._is_wanted(block):
                has_room = len(self._begun) < MOST_BLOCKS and self._num_bytes + num_bytes <= self._most_bytes
                if self._begun and not has_room:
                    return
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(MOST_REQUESTS, thread_name_prefix="clips")
                self._begun[block] = self._pool.submit(self._reader_of(unit), offset, num_bytes)
                self._num_bytes += num_bytes
            self._waiting.popleft()

    def _is_wanted(self, block: Block) -> bool:
        return any(block in group for group in self._announced)

    def _drop(self, block: Block) -> Future[bytes] | None:
        future = self._begun.pop(block, None)
        if future is not None:
            self._num_bytes -= block[2]
        return future
