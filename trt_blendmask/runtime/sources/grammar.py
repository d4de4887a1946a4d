"""What a source's text means: one grammar for files, cameras and addresses."""

from __future__ import annotations

import difflib
import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from trt_blendmask.errors import UsageError
from trt_blendmask.redact import HIDDEN, HOST, redacted, split_authority
from trt_blendmask.runtime.environment import looked_up
from trt_blendmask.runtime.images import SUFFIXES

TAKES = (
    "a video file, a folder of pictures, one picture, a quoted pattern such as 'frames/*.png', a camera (0, "
    "v4l2:///dev/video0, csi://0), rtsp://..., http(s)://..., - (standard input), gst:PIPELINE or synthetic:conveyor"
)
RTSP_OPTIONS = ("transport",)
SCHEMES = ("v4l2", "csi", "rtsp", "rtsps", "http", "https")
FORMS = {
    "v4l2": "v4l2:///dev/video0[?size=1280x720&fps=30&format=mjpg]",
    "csi": "csi://0[?size=1920x1080&fps=30&flip=0]",
    "synthetic": "synthetic:conveyor[?seed=1&fps=25&size=1024x576&seconds=10&live=0]",
}


@dataclass(frozen=True)
class SourceAddress:
    """What the user named.

    Attributes:
        kind: "video", "pictures", "stdin", "synthetic", "v4l2", "csi", "gst", "rtsp" or "http".
        target: the path, device, address or pipeline as a library takes it; may hold credentials, so it is not printed.
        name: how it may be shown.
        options: those of our own, by name.
    """

    kind: str
    target: str = field(repr=False)
    name: str
    options: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> SourceAddress:
    """Read the text of a source. `env:NAME` stands for the text in that environment variable, which keeps a password
    out of the process list.

    Raises:
        UsageError: a scheme, an option or an address that is not taken; the nearest that is, is named.
        InputMissingError: `env:NAME` without such a variable.
    """
    text = looked_up(text, "a source")
    if text == "-":
        return SourceAddress("stdin", "-", "-")
    if text.startswith("synthetic:"):
        base, _, query = text.partition("?")
        _expect(base == "synthetic:conveyor", f"Expected {FORMS['synthetic']}, got '{text[:80]}'.")
        return SourceAddress("synthetic", base, text, _options("synthetic", query))
    if text.startswith("gst:"):
        element = re.match(r"\s*([a-z0-9_]+)", text[4:])
        _expect(element is not None, "Expected a GStreamer pipeline after gst:, such as 'gst:videotestsrc'.")
        return SourceAddress("gst", text[4:].strip(), f"gst:{element[1] if element else ''}")
    if index := re.fullmatch(r"(\d{1,3})(?:\?(.*))?", text):
        return SourceAddress("v4l2", f"/dev/video{int(index[1])}", text, _options("v4l2", index[2] or ""))
    if text.startswith("/dev/"):
        device, _, query = text.partition("?")
        return SourceAddress("v4l2", device, text, _options("v4l2", query))
    if "://" in text and not os.access(text, os.F_OK):
        return _address(text)
    path, exists = Path(text), os.access(text, os.F_OK)  # Path.exists raises for a name that is too long
    _expect(
        exists or not re.search(r":.*@", text),
        f"An address begins with rtsp:// or http://, but '{HIDDEN}{text.rpartition('@')[2][:80]}' does not. Add it.",
    )
    pictures = is_pattern(text) or path.suffix.lower() in SUFFIXES or (exists and path.is_dir())
    return SourceAddress("pictures" if pictures else "video", text, text)


def is_pattern(text: str) -> bool:
    """Whether `text` stands for the files that fit it, as frames/*.jpg does, and is not the name of one."""
    return not os.access(text, os.F_OK) and any(c in text for c in "*?[")


def fitting(pattern: str) -> list[Path]:
    """The files and folders that fit `pattern`, where ** stands for any number of folders; each once, under its
    shortest name, however links lead to it. As much of it as there is under that very name is no pattern."""
    path = Path(pattern)
    there = next((folder for folder in (path, *path.parents) if os.access(folder, os.F_OK)), Path())
    pattern = f"./{path.relative_to(there)}"
    names = glob.glob(pattern, root_dir=there, recursive=True)  # noqa: PTH207  takes a**.png
    found: dict[tuple[str, str], Path] = {}
    for file in sorted((there / name for name in names), key=lambda one: (len(str(one)), one)):
        found.setdefault((os.path.realpath(file.parent), file.name), file)
    return list(found.values())


def _address(text: str) -> SourceAddress:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, 1, 0.5)
        raise UsageError(
            f"A source is {TAKES}; got '{redacted(text)}'."
            + (f" Did you mean {near[0]}://?" if near else " Convert it with ffmpeg and pipe it in: -.")
        )
    if scheme in ("v4l2", "csi"):
        target, _, query = rest.partition("?")
        is_one = re.fullmatch(r"/dev/.+" if scheme == "v4l2" else r"\d", target) is not None
        _expect(is_one, f"Expected {FORMS[scheme]}, got '{text[:80]}'.")
        return SourceAddress(scheme, target, text, _options(scheme, query))
    authority, tail = split_authority(rest)
    host = authority.rpartition("@")[2]
    whole = (
        HOST.fullmatch(host) and not re.search(r"[\x00-\x20\x7f]", text) and not ("@" not in authority and "@" in tail)
    )
    _expect(
        bool(whole),
        f"Expected {scheme}://[USER:PASSWORD@]HOST[:PORT]/PATH, got '{scheme}://{HIDDEN}'. In a password, write / as "
        "%2F, ? as %3F, # as %23, @ as %40 and a space as %20.",
    )
    if scheme in ("http", "https"):
        return SourceAddress("http", text, redacted(text))
    base, _, query = rest.partition("?")
    ours, theirs = {}, []
    for pair in filter(None, query.split("&")):  # the camera's own stay in its address, in their order
        key, _, value = pair.partition("=")
        if key in RTSP_OPTIONS:
            ours[key] = value
        elif near := difflib.get_close_matches(key.lower(), RTSP_OPTIONS, 1, 0.85):
            raise UsageError(f"The source '{redacted(text)}' has the option '{key[:40]}'. Did you mean {near[0]}?")
        else:
            theirs.append(pair)
    _expect(
        ours.get("transport", "tcp") in ("tcp", "udp"),
        f"The source '{redacted(text)}' has another transport than tcp and udp. Write transport=tcp or transport=udp.",
    )
    target = f"{scheme}://{base}" + ("?" + "&".join(theirs) if theirs else "")
    return SourceAddress("rtsp", target, redacted(text), ours)


def _options(kind: str, query: str) -> dict[str, str]:
    known = re.findall(r"(\w+)=", FORMS[kind])
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 1, 0.5)
            raise UsageError(
                f"Expected {FORMS[kind]}, but got the option '{name[:40]}'."
                + (f" Did you mean {near[0]}?" if near else " Leave it out.")
            )
    return given


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def size_wh(options: dict[str, str]) -> tuple[int, int] | None:
    """The option size=WIDTHxHEIGHT in pixels, None where it is not given.

    Raises:
        UsageError: another form.
    """
    if (text := options.get("size")) is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    _expect(match is not None and int(match[1]) > 0 < int(match[2]), f"Expected size=1280x720, got size='{text[:40]}'.")
    return (int(match[1]), int(match[2])) if match else None


def number(options: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    """The option `name`, above `low` and at most `high`.

    Raises:
        UsageError: no such number.
    """
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = float("nan")
    _expect(low < value <= high, f"Expected {name} above {low:g} and at most {high:g}, got '{options.get(name)}'.")
    return value
