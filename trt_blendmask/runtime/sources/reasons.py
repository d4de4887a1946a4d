"""Why there is no picture: the errors of FFmpeg and the system in words that tell what to look at."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import av

from trt_blendmask.runtime.events import Events

REFUSED_PAUSE_S = 30.0  # between two tries of a wrong password: cameras lock out who asks more often


@dataclass(frozen=True)
class Loss:
    """Why a line to a source broke, or was never there.

    Attributes:
        reason: one word for programs.
        text: the same for people.
        pause_s: wait at least so long before the next try.
    """

    reason: str
    text: str
    pause_s: float = 0.0


class LostError(Exception):
    """Raised by a connection that knows the reason itself."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.text)
        self.loss = loss


CUT_SHORT = "cut_short"
CLOSED = Loss("closed", "the other end closed the connection")
STILL = Loss("still", "it answers with one picture, not a video")
_UNAUTHORISED = Loss("unauthorised", "the user name or password is wrong (401)", REFUSED_PAUSE_S)
_KINDS: tuple[tuple[type[BaseException], Loss], ...] = (
    (av.HTTPUnauthorizedError, _UNAUTHORISED),
    (av.HTTPForbiddenError, Loss("forbidden", "access is forbidden (403)", REFUSED_PAUSE_S)),
    (av.HTTPNotFoundError, Loss("not_found", "the server knows no such stream (404)")),
    (av.HTTPError, Loss("server_error", "the server answered with an error")),
    (av.ExitError, Loss("timeout", "no answer in time")),
    (TimeoutError, Loss("timeout", "no answer in time")),
    (av.EOFError, CLOSED),
    (av.InvalidDataError, Loss("garbage", "what comes is no video")),
    (LookupError, Loss("garbage", "it holds no video or one of an unknown kind")),  # av's "... not found" among them
)
_NUMBERS = {
    errno.ECONNREFUSED: Loss("refused", "connection refused"),
    errno.ECONNRESET: Loss("reset", "the connection was reset"),
    errno.EPIPE: Loss("reset", "the connection was reset"),
    errno.ETIMEDOUT: Loss("timeout", "no answer in time"),
    errno.EHOSTUNREACH: Loss("unreachable", "the host cannot be reached"),
    errno.ENETUNREACH: Loss("unreachable", "there is no network"),
    errno.EIO: Loss("unreachable", "the host is not known or the line broke"),
    errno.ENOENT: Loss("absent", "there is no such device"),
    errno.ENODEV: Loss("unplugged", "the device is gone"),
    errno.ENXIO: Loss("unplugged", "the device is gone"),
    errno.EBUSY: Loss("busy", "another program uses the device"),
    errno.EACCES: Loss("permission", "access is denied: is the user in the group video?"),
    errno.EINVAL: Loss("format", "it is damaged or of a kind that is not read"),
}


def loss_of(error: BaseException) -> Loss:
    """The reason behind `error`; what it says itself is not passed on, because it may hold the address."""
    if isinstance(error, LostError):
        return error.loss
    for kind, loss in _KINDS:
        if isinstance(error, kind):
            return loss
    number = getattr(error, "errno", None)
    text = getattr(error, "strerror", None) or f"what comes cannot be read ({type(error).__name__})"
    return _NUMBERS.get(number or 0, Loss("error", text))


def tell_cut_short(name: str, loss: Loss, events: Events) -> str:
    """A recording was over before its end; a sentence that says so."""
    events.publish("source_ended_early", f"{name}: ended early, {loss.text}", {"source": name, "reason": loss.text})
    return f"Expected '{name}' whole, but {loss.text}; what came before is done. Copy the recording anew."
