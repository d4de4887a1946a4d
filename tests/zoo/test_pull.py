"""`zoo pull`: what it writes, what it refuses, and where it looks."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.server import NAME, PATH, Server, broken, checkpoint, give_up, part, redirect, send, status, whole
from trt_blendmask import cli
from trt_blendmask.errors import DataError, InputMissingError, OutputError, SourceUnavailableError, UsageError
from trt_blendmask.zoo import download
from trt_blendmask.zoo.fetch import pull
from trt_blendmask.zoo.models import MODELS
from trt_blendmask.zoo.record import check_record


def test_a_file_comes_whole_and_is_recorded(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    report = pull(NAME, tmp_path / "deep", server.url, lambda done, total: steps.append((done, total)))
    digest = hashlib.sha256(server.content).hexdigest()
    assert report.file == tmp_path / "deep" / f"{NAME}.pth"
    assert report.file.read_bytes() == server.content
    assert (report.sha256, report.size_bytes, report.is_new) == (digest, len(server.content), True)
    assert server.asked[0][0] == PATH
    assert steps[0] == (0, len(server.content))
    assert steps[-1] == (len(server.content), len(server.content))
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {f"{NAME}.pth", f"{NAME}.pth.json"}
    assert json.loads((tmp_path / "deep" / f"{NAME}.pth.json").read_text()) == {
        "name": NAME,
        "source": server.url + PATH,
        "bytes": len(server.content),
        "sha256": digest,
    }


def test_what_is_here_is_compared_not_fetched(server: Server, tmp_path: Path) -> None:
    file = pull(NAME, tmp_path, server.url).file
    again = pull(NAME, tmp_path, server.url)
    assert not again.is_new
    assert len(server.asked) == 1
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="not the file that was fetched"):
        pull(NAME, tmp_path, server.url)
    with pytest.raises(DataError, match="SHA-256"):
        check_record(file)
    file.unlink()
    pull(NAME, tmp_path, server.url)
    check_record(file)


def test_another_file_than_the_first_time_is_refused(server: Server, tmp_path: Path) -> None:
    pull(NAME, tmp_path, server.url).file.unlink()
    server.content = checkpoint(seed=1)
    with pytest.raises(DataError, match="not what was fetched before"):
        pull(NAME, tmp_path, server.url)
    assert [p.name for p in tmp_path.iterdir()] == [f"{NAME}.pth.json"]


def test_a_file_of_unknown_origin_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"mine")
    with pytest.raises(UsageError, match="there already"):
        pull(NAME, tmp_path / "x.pth", server.url)
    assert (tmp_path / "x.pth").read_bytes() == b"mine"
    assert not server.asked


PAGE = b"<!DOCTYPE html><html><title>Sign in to the hotel's network</title></html>"
WRONG: dict[str, tuple[bytes, str]] = {
    "page": (PAGE, "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
    "zip of other things": (b"PK\x05\x06" + bytes(18), "unknown kind"),
    "cut zip": (b"PK\x03\x04" + bytes(400), "cut short"),
    "hostile pickle": (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", "os.system"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_other_content_is_refused_and_not_kept(
    case: tuple[bytes, str], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [status(200, case[0])]
    code = cli.main(["zoo", "pull", NAME, "-o", str(tmp_path), "--mirror", server.url])
    assert code == (77 if "system" in case[1] else 65)
    assert case[1] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "tries"), [(401, 1), (403, 1), (404, 1), (410, 1), (500, 5), (503, 5), (429, 5)])
def test_answers_that_say_no(
    code: int, tries: int, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [status(code, PAGE)]
    assert cli.main(["zoo", "pull", NAME, "-o", str(tmp_path), "--mirror", server.url]) == 69
    assert f"answered {code}" in capsys.readouterr().err
    assert len(server.asked) == tries
    assert list(tmp_path.iterdir()) == []


def test_empty_answers_end(server: Server, tmp_path: Path) -> None:
    server.answers = [status(200, b"")]
    give_up(server, tmp_path, "sent nothing")


def test_compressed_answers_are_refused(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: send(handler, 200, b"x", {"Content-Encoding": "gzip"})]
    give_up(server, tmp_path, "compressed")


def test_redirects_are_followed_with_the_range(server: Server, tmp_path: Path) -> None:
    server.answers = [redirect("/elsewhere?signature=1"), broken(300_000), redirect("/elsewhere"), whole]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    assert [path for path, _ in server.asked] == [PATH, "/elsewhere?signature=1", PATH, "/elsewhere"]
    assert server.ranges()[-1] == "bytes=300000-"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (PATH, "circle"),
        ("ftp://127.0.0.1/x", "not encrypted"),
        ("file:///etc/passwd", "no web address"),
        ("http://[bad/x", "an address that is none"),
    ],
)
def test_bad_redirects(target: str, words: str, server: Server, tmp_path: Path) -> None:
    server.answers = [redirect(target)]
    give_up(server, tmp_path, words)
    assert len(server.asked) <= 6


def test_https_is_not_left_for_http() -> None:
    handler = download._Redirects()
    request = download.urllib.request.Request("https://example.org/a")
    arguments = (request, io.BytesIO(), 302, "Found", {})
    with pytest.raises(SourceUnavailableError, match="not encrypted"):
        handler.redirect_request(*arguments, "http://example.org/a")
    assert handler.redirect_request(*arguments, "https://cdn.example.org/a") is not None


@pytest.mark.parametrize("right", [True, False])
def test_the_hash_that_a_redirect_states(right: bool, server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(server.content if right else b"").hexdigest()
    server.answers = [redirect("/x", {"X-Linked-Etag": f'"{digest}"'}), whole]
    if right:
        assert pull(NAME, tmp_path, server.url).sha256 == digest
    else:
        with pytest.raises(DataError, match="SHA-256 that the server states"):
            pull(NAME, tmp_path, server.url)
        assert list(tmp_path.iterdir()) == []


def test_credentials_go_to_the_mirror_alone_and_are_never_shown(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = server.url.replace("//", "//me:s3cret%21@") + "/"
    server.answers = [redirect(server.url.replace("127.0.0.1", "localhost") + "/x"), whole]
    assert cli.main(["zoo", "pull", NAME, "-o", str(tmp_path), "--mirror", mirror]) == 0
    assert server.asked[0][1]["authorization"] == "Basic bWU6czNjcmV0IQ=="
    assert "authorization" not in server.asked[1][1]
    server.answers = [status(404)]
    assert cli.main(["zoo", "pull", "R_50_1x", "-o", str(tmp_path), "--mirror", mirror]) == 69
    shown = "".join(capsys.readouterr()) + "".join(p.read_text("latin-1") for p in tmp_path.glob("*.json"))
    assert "s3cret" not in shown
    assert "non-commercial" in shown


def test_the_proxy_of_the_environment_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    pull(NAME, tmp_path, "http://models.invalid")
    assert server.asked[0][0] == f"http://models.invalid{PATH}"


def test_nobody_there(server: Server, tmp_path: Path) -> None:
    server.http.server_close()
    give_up(server, tmp_path, "Connection refused")


def test_a_server_that_falls_silent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    silence = threading.Event()

    def silent(handler: Any) -> None:
        part(handler, 300_000)
        handler.wfile.flush()
        silence.wait(2)

    server.answers = [silent, whole]
    assert pull(NAME, tmp_path, server.url).file.read_bytes() == server.content
    silence.set()


def test_a_folder_or_a_file_as_the_mirror(server: Server, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "Person_R_50_1x.pth").write_bytes(server.content)
    for number, place in enumerate((mirror, mirror.as_uri(), mirror / "Person_R_50_1x.pth")):
        report = pull("Person_R_50_1x", tmp_path / f"{number}.pth", str(place))
        assert report.file.read_bytes() == server.content
    with pytest.raises(InputMissingError, match=r"R_50_1x\.pth"):
        pull("R_50_1x", tmp_path, str(mirror))
    assert pull("Person_R_50_1x", tmp_path, f"{server.url}/my.pth").size_bytes == len(server.content)
    assert server.asked[0][0] == "/my.pth"


@pytest.mark.parametrize("mirror", ["ftp://x/y", "http://", "http://[", "http://a b/", "http://a:x/"])
def test_mirrors_that_are_none(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--mirror"):
        pull(NAME, tmp_path, mirror)


def test_places_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        pull(NAME, tmp_path / "file" / "x.pth", server.url)
    with pytest.raises(UsageError, match="the nearest are"):
        pull("R_50_2x", tmp_path, server.url)


def test_models_without_weights_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zoo", "pull", "Person/R_50_1x"]) == 69
    assert "CloudStor" in capsys.readouterr().err
    assert cli.main(["zoo", "pull"]) == 2


def test_the_table_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zoo"]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["R_101_dcni3_5x"][1:5] == ["800/1333", "46.8", "41.1", "2020"]
    assert rows["550_R_50_3x"][1:4] == ["550/916", "38.7", "34.5"]
    assert rows["Panoptic_R_50_3x"][5] == "Panoptic/R_50_3x.yaml"
    assert all(model.name in rows for model in MODELS)
    assert "non-commercial" in text


def test_export_notices_a_fetched_file_that_changed(server: Server, tmp_path: Path) -> None:
    file = pull(NAME, tmp_path, server.url).file
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    words = ["export", str(file), "--preset", NAME, "-o", str(tmp_path / "raw.onnx")]
    result = subprocess.run(
        [sys.executable, "-m", "trt_blendmask", *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 65
    assert "not the file that was fetched" in result.stderr
