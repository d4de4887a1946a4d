"""Says in words what a file is that is not what was asked for."""

from __future__ import annotations

TEXT = "a text file"
ONNX = "an ONNX model"
UNKNOWN = "a file of an unknown kind"
ENGINES = ("a TensorRT engine", "a TensorRT-RTX engine")
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?)"),
    (b"\x80\x02", "a pickle (an older PyTorch checkpoint?)"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras weights?)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program or library"),
    (b"RIFF", "a RIFF file (AVI, WAV or WebP)"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"GGUF", "a GGUF model"),
    (b"ftrt", ENGINES[0]),
    (b"ptrt", ENGINES[0]),
    (b"vtrt", ENGINES[1]),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
)


def describe(head: bytes) -> str:
    """What a file whose first bytes (some hundred, at least 64 where the file has them) are `head` looks like."""
    for signature, words in SIGNATURES:
        if head.startswith(signature):
            return words
    if head[4:8] == b"ftyp":
        return "an MP4 video"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if not head.strip(b"\0"):
        return "nothing but zero bytes (a download that was cut short?)"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a web page (an error page saved by a download?)"
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 32 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42):
        return ONNX
    readable = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    if readable and 4 * sum(byte >= 127 for byte in head) <= len(head):
        return TEXT
    return UNKNOWN
