"""An HTTP camera (multipart MJPEG) that misbehaves on command, and a plain file server for HLS."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from . import clips


class MjpegServer:
    """`/live` is the camera, all else a file of `folder`.

    Attributes: mode: "ok", "freeze" or "close"; status: of the answer to `/live`; requests: how many came;
    keep: the part of a file that is sent before the line breaks; begin, part: what stands before the first and each
    picture; cut: every third picture lacks its second half; most: so many pictures, and the line ends; length: what the
    answer says that it has.
    """

    def __init__(self, folder: Path | None = None, fps: float = 25.0, port: int = 0) -> None:
        self.mode, self.status, self.fps, self.folder = "ok", 200, fps, folder
        self.keep, self.cut, self.most, self.length = 1.0, False, 1 << 30, ""
        self.begin, self.part = "", "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
        self.frame_wh, self.requests, self.sent = (320, 240), 0, 0
        owner = self

        class Handler(_Handler):
            camera = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> MjpegServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = "close"
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live"


class _Handler(BaseHTTPRequestHandler):
    camera: MjpegServer

    def do_GET(self) -> None:
        self.camera.requests += 1
        try:
            if self.path.startswith("/live"):
                self._stream()
            else:
                self._file()
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass

    def _file(self) -> None:
        content = ((self.camera.folder or Path()) / self.path[1:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: int(len(content) * self.camera.keep)])

    def _stream(self) -> None:
        camera = self.camera
        self.send_response(camera.status)
        if camera.status != 200:
            self.end_headers()
            return
        many = "multipart/x-mixed-replace; boundary=frame"
        self.send_header("Content-Type", many if camera.part else "video/x-motion-jpeg")
        if camera.length:
            self.send_header("Content-Length", camera.length)
        self.end_headers()
        self.wfile.write(camera.begin.encode())
        sent = 0
        while camera.mode != "close" and sent < camera.most:
            if camera.mode == "ok":
                camera.sent += 1
                sent += 1
                jpeg = clips.jpeg(camera.sent, 0, 0.5 if camera.cut and camera.sent % 3 == 0 else 1.0, camera.frame_wh)
                self.wfile.write(camera.part.format(len(jpeg)).encode() + jpeg + (b"\r\n" if camera.part else b""))
            time.sleep(1 / camera.fps)
