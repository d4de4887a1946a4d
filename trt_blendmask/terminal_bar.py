"""What all bars on the terminal share: they are there from `with` to its end, or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

B = TypeVar("B", bound="TerminalBar")


class TerminalBar:
    """Shows `_bar` while entered; where that is None, nothing."""

    _bar: Progress | None = None

    def __enter__(self: B) -> B:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
