"""Downloads that break off go on where they stopped, and never mix two versions of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.server import NAME, Server, broken, checkpoint, give_up, send, status, whole
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.zoo import download
from trt_blendmask.zoo.fetch import pull


def test_broken_connections_are_resumed_in_one_run(server: Server, tmp_path: Path) -> None:
    server.answers = [broken(300_000), status(503), broken(100_000), whole]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    assert server.ranges() == ["", "bytes=300000-", "bytes=300000-", "bytes=400000-"]
    assert all(headers.get("if-range") == '"one"' for _, headers in server.asked[1:])


def test_a_later_run_goes_on(server: Server, tmp_path: Path) -> None:
    server.answers = [broken(300_000), broken(0)]
    assert "0.3 MB are kept" in give_up(server, tmp_path)
    assert len(server.asked) == download.TRIES
    server.answers, server.asked = [whole], []
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    assert server.ranges() == ["bytes=300000-"]


def test_a_changed_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [broken(300_000), broken(0)]
    give_up(server, tmp_path)
    server.content, server.etag = checkpoint(seed=1), '"two"'
    server.answers = [whole]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content


def test_a_range_of_another_version_is_not_appended(server: Server, tmp_path: Path) -> None:
    """A server that ignores If-Range."""

    def careless(handler: Any) -> None:
        del handler.headers["If-Range"]
        whole(handler)

    server.answers = [broken(300_000), broken(0)]
    give_up(server, tmp_path)
    server.content, server.etag = checkpoint(seed=1), '"two"'
    server.answers = [careless]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content


@pytest.mark.parametrize("place", ["bytes 5-9/10", "bytes 300000-800079/999999", "nonsense", ""])
def test_a_range_that_was_not_asked_for_is_not_appended(server: Server, tmp_path: Path, place: str) -> None:
    def wrong(handler: Any) -> None:
        body = server.content[300_000:]
        send(handler, 206, body, {"ETag": server.etag, "Content-Range": place})

    server.answers = [broken(300_000), wrong, whole]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    assert server.ranges() == ["", "bytes=300000-", ""]


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [broken(300_000), lambda handler: send(handler, 200, server.content, {"ETag": server.etag})]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content


def test_a_server_without_validators_is_resumed_while_the_size_stays(server: Server, tmp_path: Path) -> None:
    def plain(most: int | None) -> Callable[[Any], None]:
        def answer(handler: Any) -> None:
            start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
            body, size = server.content[start:], len(server.content)
            place = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
            send(handler, 206 if start else 200, body[:most], place, len(body))

        return answer

    server.answers = [plain(300_000), plain(None)]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    assert server.ranges() == ["", "bytes=300000-"]


def test_a_length_that_is_too_large_never_ends_well(server: Server, tmp_path: Path) -> None:
    def lie(handler: Any) -> None:
        if handler.headers.get("Range"):
            send(handler, 416, b"")
        else:
            send(handler, 200, server.content, {"ETag": server.etag}, len(server.content) + 1000)

    server.answers = [lie]
    give_up(server, tmp_path)
    assert len(server.asked) < 12


def test_a_length_that_is_too_small_is_noticed(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: send(handler, 200, server.content, {"ETag": server.etag}, 500_000)]
    with pytest.raises(DataError, match="cut short"):
        pull(NAME, tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []


def test_no_length_at_all(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: send(handler, 200, server.content, length=-1)]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content


def test_chunks_and_a_chunk_that_breaks_off(server: Server, tmp_path: Path) -> None:
    def chunked(end: bytes, most: int) -> Callable[[Any], None]:
        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            body = server.content[:most]
            handler.wfile.write(b"%x\r\n" % len(server.content) + body + end)

        return answer

    server.answers = [chunked(b"", 1000), chunked(b"\r\n0\r\n\r\n", len(server.content))]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content


def test_ctrl_c_keeps_the_part(server: Server, tmp_path: Path) -> None:
    def stop(done: int, _total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="type the same command to go on"):
        pull(NAME, tmp_path, server.url, stop)
    assert {p.name for p in tmp_path.iterdir()} == {f"{NAME}.pth.part", f"{NAME}.pth.part.json"}
    pull(NAME, tmp_path, server.url)
    assert server.ranges()[1].startswith("bytes=")
    assert {p.name for p in tmp_path.iterdir()} == {f"{NAME}.pth", f"{NAME}.pth.json"}


def test_a_part_of_another_address_is_not_used(server: Server, tmp_path: Path) -> None:
    server.answers = [broken(300_000), broken(0)]
    give_up(server, tmp_path)
    server.answers, server.asked = [whole], []
    pull(NAME, tmp_path, f"{server.url}/other")
    assert server.ranges() == [""]
    (tmp_path / "R_50_1x.pth.part").write_bytes(b"what is this")
    assert pull("R_50_1x", tmp_path, server.url).file.read_bytes() == server.content


def test_two_commands_do_not_write_one_part(server: Server, tmp_path: Path) -> None:
    def second(done: int, _total: int | None) -> None:
        if done:
            pull(NAME, tmp_path, server.url)

    with pytest.raises(UsageError, match="Another command"):
        pull(NAME, tmp_path, server.url, second)
