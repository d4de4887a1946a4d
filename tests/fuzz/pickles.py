"""Pickles: random programs of every instruction, old and new, and bombs."""

from __future__ import annotations

import math
import pickle
import pickletools
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.fuzz.checkpoints import dictionary, tensor, text

GLOBALS = (
    ("os", "system"), ("builtins", "eval"), ("__builtin__", "exec"), ("posix", "system"), ("copyreg", "_reconstructor"),
    ("torch", "FloatStorage"), ("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"),
    ("collections", "Counter"), ("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("", ""), ("a" * 5000, "b"), ("torch.storage", "_load_from_bytes"), ("functools", "partial"),
)  # fmt: skip
WORDS = (b"", b"a", b"model", b"storage", b"\xff\xfe", b"\n", b"os", b"9" * 50, b"-0x7f", b"1e999", b"nan", b"True")


def program(rng: random.Random) -> bytes:
    """A random pickle; most break soon, so each starts with values on the stack."""
    protocol = rng.randrange(6)
    out = [b"\x80" + bytes([protocol])] if protocol >= 2 or rng.random() < 0.1 else []
    out += [b"}q\x00]q\x01(", text("model"), b"K\x01"]
    for _ in range(rng.choice((3, 10, 60))):
        opcode = rng.choice(pickletools.opcodes)
        if opcode.name == "STOP":
            continue
        if opcode.name in ("BINPERSID", "BUILD") and rng.random() < 0.5:
            out.append(tensor("0", 4, (4,)))
        out.append(opcode.code.encode("latin-1") + _argument(opcode.arg, rng))
    return b"".join([*out, b"." if rng.random() < 0.9 else b""])


def _argument(kind: Any, rng: random.Random) -> bytes:
    if kind is None:
        return b""
    if kind.n >= 0:
        return rng.choice((bytes(kind.n), b"\xff" * kind.n, rng.randbytes(kind.n), b"\1" + bytes(max(0, kind.n - 1))))[
            : kind.n
        ]
    if kind.n == pickletools.UP_TO_NEWLINE:
        if kind.name == "stringnl_noescape_pair":
            module, name = rng.choice(GLOBALS)
            return f"{module}\n{name}\n".encode()
        word = rng.choice(WORDS)
        return (b"'" + word + b"'" if rng.random() < 0.3 else word) + b"\n"
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(kind.n, 4)
    word = rng.choice(WORDS)
    length = rng.choice((len(word), len(word), len(word), 2 ** (8 * width) - 1, 2 ** (8 * width - 1)))
    return length.to_bytes(width, "little") + word


class Reduces:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def dumped(rng: random.Random) -> bytes:
    """What Python's own pickler writes for a random tree with a call in it, in any protocol."""

    def tree(depth: int) -> Any:
        kinds: tuple[Callable[[], Any], ...] = (
            lambda: rng.choice((0, -1, 2**70, 1.5, math.nan, None, True, "ä", b"\0", bytearray(3), {1, 2}, (), 1j)),
            lambda: [tree(depth - 1) for _ in range(rng.randrange(4))],
            lambda: tuple(tree(depth - 1) for _ in range(rng.randrange(4))),
            lambda: {str(i): tree(depth - 1) for i in range(rng.randrange(4))},
            lambda: Reduces(rng.choice((eval, print, open, complex, bytearray, set)), "1"),
        )
        return rng.choice(kinds)() if depth else 1

    return pickle.dumps({"model": tree(4)}, protocol=rng.randrange(6))


def hostile() -> dict[str, bytes]:
    """Name to pickle; all must be refused."""
    shared = text("x") + b"q\x00"
    laughs = {
        name: b"\x80\x02" + shared
        + b"".join(b"(" + b"h" + bytes([i - 1]) + (b"h" + bytes([i - 1])) * 9 + make + b"q" + bytes([i])
                   for i in range(1, 60)) + b"."
        for name, make in (("tuples", b"t"), ("lists", b"l"), ("sets", b"\x91"), ("dicts", b"d"))
    }  # fmt: skip
    memo = b"\x80\x04" + b"".join(b"N\x940" for _ in range(400_000)) + b"N."
    long = b"\x80\x02\x8b" + struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000 + b"."
    shout = text("k" * 1_000_000) + b"q\x00"
    bombs = {
        **{f"laughing {name}": data for name, data in laughs.items()},
        "400,000 memo entries": memo,
        "integer of 4 MB": long,
        "decimal integer of 1 MB": b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.",
        "decimal integer as int": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
        "negative LONG4": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "FRAME of 2**63": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + b"N.",
        "frames in frames": b"\x80\x04" + b"\x95\x09\0\0\0\0\0\0\0" * 100_000 + b"N.",
        "BYTEARRAY8 of 2**40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "BINBYTES8 of 2**63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"x.",
        "BINUNICODE of 4 GB": b"\x80\x02X\xff\xff\xff\xffx.",
        "a megabyte of text, pushed 100,000 times": b"\x80\x02(" + shout + b"h\x00" * 100_000 + b"t.",
        "a megabyte of text as 20,000 keys": b"\x80\x02}(" + shout + b"N" + b"h\x00N" * 20_000 + b"u.",
        "colliding keys": b"\x80\x02}(" + b"".join(
            b"\x8a\x08" + (i * (2**61 - 1)).to_bytes(8, "little") + b"N" for i in range(1, 4)) * 50_000 + b"u.",
        "nan keys": b"\x80\x02}(" + (b"G\x7f\xf8\0\0\0\0\0\0N") * 100_000 + b"u.",
        "marks": b"\x80\x02" + b"(" * 3_000_000 + b".",
        "nested reduce": b"\x80\x02" + b"ccollections\nOrderedDict\n(" * 100_000 + b"tR" * 100_000 + b".",
        "nested dictionaries": b"\x80\x02" + (b"}" + text("model")) * 200_000 + b"N" + b"s" * 200_000 + b".",
        "itself": b"\x80\x02}q\x00" + text("model") + b"h\x00s.",
        "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
        "next buffer": b"\x80\x05\x97\x98.",
        "INST": b"(S'id'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'id'\no.",
        "EXT4": b"\x80\x02\x84\x01\0\0\0.",
        "unicode escapes": b"V\\ud800\\u0000\\n\n.",
        "protocol 255": b"\x80\xff}.",
        "names of 50,000 tensors": b"\x80\x02" + dictionary({"a" * 500 + str(i): b"N" for i in range(50_000)}) + b".",
    }  # fmt: skip
    return {f"pickle: {name}": data for name, data in bombs.items()}
