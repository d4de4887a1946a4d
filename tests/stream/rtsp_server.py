"""A camera that misbehaves on command: RTSP in pure Python, H.264 (payload 96) over interleaved TCP or UDP.

Every session has an encoder of its own and begins with a key frame. Every frame carries a number, which counts over all
sessions, and the time it was sent (`frame_code`).
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from . import frame_code

MODES = ("ok", "freeze", "silent", "garbage", "repeat")
_MTU = 1300  # bytes of video in a packet
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
_SDP += "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"


class RtspServer:
    """Serves any path. Set while it runs:

    Attributes:
        mode: "ok"; "freeze" sends nothing more, with all sockets open; "silent" answers no request either; "garbage"
            sends noise in place of video; "repeat" sends the same picture again and again.
        frame_wh: of the frames of sessions to come, and of those under way.
        status: what DESCRIBE is answered with: 200, 401, 404 ...
        requests: how many DESCRIBEs came. users: ("name", "password") that Basic authentication asks for, or None.
        numbers: of the frames sent so far.
    """

    def __init__(self, fps: float = 25.0, frame_wh: tuple[int, int] = (320, 240)) -> None:
        self.mode, self.fps, self.frame_wh, self.status = "ok", fps, frame_wh, 200
        self.user: tuple[str, str] | None = None
        self.requests, self.sent, self.port = 0, 0, 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._image = np.zeros((1, 1, 3), np.uint8)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def start(self) -> None:
        """Listen, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(16)
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self, reset: bool = False) -> None:
        """Close the listener and all connections: with FIN, or with RST."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop(reset)

    def drop(self, reset: bool = False) -> None:
        """Close all connections, but go on listening."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for client in sockets:
            with contextlib.suppress(OSError):
                if reset:  # only the reading side is shut, which wakes its thread: the RST goes out when all close it
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
                client.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        session = _Session(self, client)
        with contextlib.suppress(OSError, ValueError):
            session.serve()
        session.over.set()
        with self._lock:
            self._sockets.discard(client)
        client.close()

    def picture(self) -> np.ndarray:
        """The next picture to send, or the last once more."""
        width, height = self.frame_wh
        if self.mode == "repeat" and self._image.shape == (height, width, 3):
            return self._image
        self.sent += 1
        image = np.full((height, width, 3), 96, np.uint8)
        frame_code.draw(image, self.sent, frame_code.now_ms())
        image[-height // 6 :, (self.sent * 4) % width :] = 160
        self._image = image
        return image


class _Session:
    """One client."""

    def __init__(self, server: RtspServer, client: socket.socket) -> None:
        self._server, self._client = server, client
        self._send_lock = threading.Lock()
        self._udp: tuple[socket.socket, tuple[str, int]] | None = None
        self.over = threading.Event()

    def serve(self) -> None:
        buffer = b""
        while data := self._client.recv(65536):
            buffer += data
            while True:
                if buffer[:1] == b"$" and len(buffer) >= 4:  # RTCP of the client
                    size = 4 + int.from_bytes(buffer[2:4], "big")
                    if len(buffer) < size:
                        break
                    buffer = buffer[size:]
                elif b"\r\n\r\n" in buffer:
                    request, buffer = buffer.split(b"\r\n\r\n", 1)
                    self._answer(request.decode())
                else:
                    break

    def _answer(self, request: str) -> None:
        server, method = self._server, request.split(" ", 1)[0]
        while server.mode == "silent" and not self.over.wait(0.05):
            pass
        sequence = re.search(r"CSeq: *(\d+)", request, re.I)
        status, extra, body = 200, "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif method == "DESCRIBE":
            server.requests += 1
            status = server.status if server.user is None or "authorization:" in request.lower() else 401
            extra = "Content-Type: application/sdp\r\n" if status == 200 else ""
            extra = 'WWW-Authenticate: Basic realm="camera"\r\n' if status == 401 else extra
            body = _SDP if status == 200 else ""
        elif method == "SETUP":
            ports = re.search(r"client_port=(\d+)-(\d+)", request)
            transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
            if ports:
                udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                udp.bind(("127.0.0.1", 0))
                self._udp = udp, ("127.0.0.1", int(ports[1]))
                own = udp.getsockname()[1]
                transport = f"RTP/AVP;unicast;client_port={ports[1]}-{ports[2]};server_port={own}-{own + 1}"
            extra = f"Session: 1\r\nTransport: {transport}\r\n"
        elif method in ("PLAY", "TEARDOWN", "GET_PARAMETER"):
            extra = "Session: 1\r\n"
        head = f"RTSP/1.0 {status} OK\r\nCSeq: {sequence[1] if sequence else 0}\r\n{extra}"
        self._send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if method == "PLAY":
            threading.Thread(target=self._play, daemon=True).start()

    def _play(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream()
        if self._udp is not None:
            self._udp[0].close()

    def _stream(self) -> None:
        server, number, encoder = self._server, 0, H264Encoder(self._server.fps)
        began_s, i = time.monotonic(), 0
        while not self.over.wait(max(0.0, began_s + i / server.fps - time.monotonic())):
            while server.mode in ("freeze", "silent") and not self.over.wait(0.02):
                began_s = time.monotonic() - i / server.fps
            payloads = list(rtp_payloads(encoder.encode(server.picture())))
            if server.mode == "garbage":
                payloads = [np.random.default_rng(i).bytes(len(payload)) for payload in payloads]
            for payload in payloads:
                ticks, kind = int(i * 90000 / server.fps) & 0xFFFFFFFF, 0xE0 if payload is payloads[-1] else 0x60
                rtp = struct.pack(">BBHII", 0x80, kind, number & 0xFFFF, ticks, 1) + payload
                number += 1
                if self._udp is not None:
                    self._udp[0].sendto(rtp, self._udp[1])
                else:
                    self._send(b"$\0" + len(rtp).to_bytes(2, "big") + rtp)
            i += 1

    def _send(self, data: bytes) -> None:
        with self._send_lock:
            self._client.sendall(data)


class H264Encoder:
    """Frames to H.264, a key frame a second; another size begins with a new key frame."""

    def __init__(self, fps: float) -> None:
        self._fps = Fraction(fps).limit_denominator(1001)
        self._context: av.VideoCodecContext | None = None
        self._count = 0

    def encode(self, image: np.ndarray) -> bytes:
        """What brings `image`, uint8 [H, W, 3] BGR, to the other side, complete."""
        height, width = image.shape[:2]
        if self._context is None or (self._context.width, self._context.height) != (width, height):
            self._context = context = av.CodecContext.create("libx264", "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base, context.framerate, context.gop_size = 1 / self._fps, self._fps, round(self._fps)
            context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = self._count, 1 / self._fps
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


def rtp_payloads(content: bytes) -> Iterator[bytes]:
    """H.264 with start codes, cut for RTP: a unit that fits as it is, a longer one in fragments (RFC 6184, FU-A)."""
    for unit in filter(None, re.split(rb"\x00\x00\x00?\x01", content)):
        if len(unit) <= _MTU:
            yield unit
            continue
        for at in range(1, len(unit), _MTU):
            first, last = 0x80 * (at == 1), 0x40 * (at + _MTU >= len(unit))
            yield bytes([unit[0] & 0xE0 | 28, first | last | unit[0] & 0x1F]) + unit[at : at + _MTU]
