"""A page in the browser that shows a run and controls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.preview.address import Serving
from trt_blendmask.runtime.preview.state import PreviewState
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import Source

if TYPE_CHECKING:
    from trt_blendmask.runtime.preview.server import Server

__all__ = ["Preview", "Serving"]


class Preview:
    """The page of one run, from its making until `end`; also the sink that feeds it, which only takes note of results.

    Attributes:
        url: of the page. states: what it shows, of each source.
    """

    name, draws = "preview", False

    def __init__(self, serving: Serving, controls: Controls, events: Events, sources: int = 1) -> None:
        """`sources`: how many there will be.

        Raises:
            OutputError: the address is taken.
            SourceUnavailableError: the library aiohttp is not installed.
        """
        try:
            from trt_blendmask.runtime.preview.server import Server
            from trt_blendmask.runtime.preview.site import About
        except ModuleNotFoundError as error:
            raise SourceUnavailableError(
                "Expected the package aiohttp for the preview page, and it is not installed: "
                "pip install 'trt-blendmask[web]'"
            ) from error
        self.written: list[Path] = []
        self.states = [PreviewState() for _ in range(sources)]
        self._about = About()
        self._server: Server = Server(serving, self.states, controls, events, self._about)
        self.url = self._server.url
        token = "?token=..." if serving.token else ""
        events.publish("preview", f"Preview: {self.url}{token}", {"url": self.url})

    def begin(
        self, sources: Sequence[Source], dropped: Callable[[int], int], how: str, can_record: Callable[[], bool]
    ) -> None:
        """Frames are about to come.

        Args:
            dropped: how many frames of the source of that number made place for newer ones. how: runs the network.
            can_record: whether there is an overlay video to switch on and off, and it works.
        """
        for number, (source, state) in enumerate(zip(sources, self.states, strict=True)):
            state.watch(source, partial(dropped, number))
        self._about.how, self._about.can_record = how, can_record
        self._server.site.poke()

    def check(self) -> None:
        pass

    def write(self, result: FrameResult) -> None:
        self.states[result.source_number].show(result)
        self._server.site.pictures[result.source_number].news()

    def close(self) -> None:
        """The last result was shown; the page stays until `end`."""

    def end(self) -> None:
        """Stop serving."""
        self._server.close()
