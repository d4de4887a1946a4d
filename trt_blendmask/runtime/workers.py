"""The threads beside the main one: `Ahead` reads frames before they are needed, `abreast` works on several at a time,
`Behind` writes after them.

The queues hold at most `DEPTH` items, hand an error of their thread to the main thread, and always end: no call blocks
on a queue that nobody empties.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
DEPTH = 2
_POLL_S = 0.05  # how soon a thread that waits notices that it should stop


class _End:
    """Marks the last item."""


class Ahead(Generic[T]):
    """Iterates over `items` in a thread of its own."""

    def __init__(self, items: Iterable[T]) -> None:
        self._queue: queue.Queue[T | _End | BaseException] = queue.Queue(DEPTH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), name="source", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the thread (after the item it works on) and forget what was read ahead."""
        self._stop.set()
        self._thread.join()

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(_End())
        except BaseException as error:
            self._put(error)

    def _put(self, item: T | _End | BaseException) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_S)
                return True
        return False


def abreast(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[tuple[T, R], None, None]:
    """Each item with `work(item)`, in order, made by several threads at a time.

    Raises:
        the error of `work` or of `items`; what is under way is finished first, what waits is forgotten.
    """
    pool = ThreadPoolExecutor(threads, "network")
    pending: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) > threads:
                yield pending[0][0], pending.popleft()[1].result()
        while pending:
            yield pending[0][0], pending.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


class Behind(Generic[T]):
    """Calls `write` for each item given to `put`, in order, in a thread of its own."""

    def __init__(self, write: Callable[[T], None]) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(DEPTH)
        self._write = write
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sink", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over one item; waits while `DEPTH` are pending.

        Raises:
            the error of an earlier `write`.
        """
        self._put(item)

    def close(self) -> None:
        """Wait until all is written.

        Raises:
            the error of an earlier `write`.
        """
        if self._thread.is_alive():
            self._put(_End())
        self._thread.join()
        self._raise()

    def abort(self) -> None:
        """End the thread without writing what is still pending; harmless after `close`."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(_End())  # never waits: nobody else puts, and the queue has just been emptied
        self._thread.join()

    def _put(self, item: T | _End) -> None:
        while True:
            self._raise()
            with contextlib.suppress(queue.Full):
                return self._queue.put(item, timeout=_POLL_S)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while not isinstance(item := self._queue.get(), _End):
                self._write(item)
        except BaseException as error:
            self._error = error
