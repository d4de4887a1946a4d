"""Addresses as they may be shown: enough to know the camera, nothing that opens it."""

from __future__ import annotations

import re

HOST = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[\w.-]+)(:\d{1,5})?")
_HARMLESS = re.compile(
    r"(channel|channelno|subtype|stream|streamid|cam|camera|profile|track|proto|transport)"
    r"=(\d{1,4}|main|sub|tcp|udp|unicast|multicast|onvif)",
    re.I,
)
_PLAIN_SEGMENT = re.compile(r"[\w.,-]{1,23}")
_TOKEN = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[0-9A-Za-z]{12,}")
_WORD = re.compile(r"[^\s'\"<>]+")
_ADDRESS = re.compile(r"(rtsps?|rtmps?|mqtts?|https?):/{0,2}([\w\[:*].*)", re.I)
_USER = re.compile(r"[^@]*:.*@")
_HELP = re.compile(r"[a-z\[\]]+://\[USER:PASSWORD@\]HOST\[:PORT\]/[A-Z]+,?")  # our own words, letter by letter
_PIPELINE = re.compile(r"(gst:\s*[a-z0-9_]+)\s.*=.*", re.DOTALL)  # its quotes are not ours: nobody knows where it ends
HIDDEN = "***"


def redacted(url: str) -> str:
    """The scheme, the host and the last part of the path of `url`, and what in its query names a channel.

    User, password, the rest of the path and of the query may all be secrets of some camera, and are left out. Where
    it is not certain which part is which (an unescaped `/` in a password), only the scheme is kept.

    Example:
        >>> redacted("rtsp://admin:secret@10.0.0.5:554/Streaming/Channels/101?token=abc&channel=1")
        'rtsp://10.0.0.5:554/.../101?channel=1&***'
    """
    scheme, _, rest = url.partition("://")
    authority, tail = split_authority(rest)
    host = authority.rpartition("@")[2]
    if "@" in tail or not HOST.fullmatch(host):
        return f"{scheme}://{HIDDEN}"
    path, mark, query = re.fullmatch(r"([^?#]*)([?#]?)(.*)", tail, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{scheme}://{host}{_short_path(path)}{mark}{_short_query(query)}"


def without_secrets(text: str) -> str:
    """`text` with the addresses in it redacted, as far as they are known for such where nobody expected one.

    Pages (http) and topics (mqtt) without user and query are shown as they are, and so is the form that our own help
    gives. A path has made one slash of two.

    Example:
        >>> without_secrets("Expected a model at 'rtsp:/admin:secret@10.0.0.5/stream'.")
        "Expected a model at 'rtsp://10.0.0.5/stream'."
    """
    return _WORD.sub(lambda word: _without_secrets(word[0]), _PIPELINE.sub(rf"\1 {HIDDEN}", text))


def _without_secrets(word: str) -> str:
    if _HELP.fullmatch(word):
        return word
    if found := _ADDRESS.match(word):
        scheme, rest = found.groups()
        is_bare = not any(mark in rest for mark in "@?#")
        is_page = is_bare and scheme.lower().startswith("http")
        is_topic = is_bare and scheme.lower().startswith("mqtt") and HOST.fullmatch(split_authority(rest)[0])
        return word if is_page or is_topic else redacted(f"{scheme}://{rest}")
    return f"{HIDDEN}@{word.rpartition('@')[2]}" if _USER.match(word) else word


def split_authority(rest: str) -> tuple[str, str]:
    """What follows `://`, as the part with user and host, and all after it."""
    end = re.search(r"[/?#]", rest)
    at = end.start() if end else len(rest)
    return rest[:at], rest[at:]


def _short_path(path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if not segments:
        return path[:1]
    last = segments[-1]
    shown = last if _PLAIN_SEGMENT.fullmatch(last) and not _TOKEN.fullmatch(last) else HIDDEN
    return f"/.../{shown}" if len(segments) > 1 else f"/{shown}"


def _short_query(query: str) -> str:
    pairs = re.split(r"[&;]", query)
    shown = [pair for pair in pairs if _HARMLESS.fullmatch(pair)]
    return "&".join(shown + [HIDDEN] * (len(shown) < len(pairs))) if query else ""
