"""Reads the pickles inside PyTorch checkpoints without executing anything in them.

A pickle is a program for a small stack machine. This is such a machine with the dangerous half left out: a global is
only ever a name, no module is imported, no attribute is set, and calls are possible to a few builders written here.
Time and memory are bounded by the size of the pickle: values are referenced, not copied.
"""

from __future__ import annotations

import io
import mmap
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

from trt_blendmask.errors import NotTrustedError
from trt_blendmask.export.storage import DamagedError, view_fits

STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Training state that often lies beside the weights: read as a thing without content.
INERT = frozenset(
    {
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
        ("torch", "Size"),
        ("torch", "device"),
        ("argparse", "Namespace"),
        ("pathlib", "PosixPath"),
        ("datetime", "datetime"),
        *((module, kind) for module in ("builtins", "__builtin__") for kind in ("set", "frozenset", "complex")),
        *(("torch", kind) for kind in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")),
    }
)
MAX_COPIED_ITEMS = 500_000


@dataclass(frozen=True)
class Name:
    """A global of the pickle: never more than its name."""

    module: str
    name: str


@dataclass(frozen=True)
class StorageRef:
    """Where a tensor's numbers lie: the record `key`, `count` elements of `dtype`, from element `start` of it."""

    key: str
    dtype: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage; checked to lie inside it."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """A value that is allowed to be there and never looked at."""


@dataclass(frozen=True)
class Unpickled:
    """The saved value, and the dtype of every storage it mentions."""

    value: Any
    storages: dict[str, str]


def load_pickle(stream: io.BytesIO | mmap.mmap) -> Unpickled:
    """Run one pickle from the stream's position; leaves the stream behind its last byte.

    The stream is in memory, because a file would set aside whatever length a pickle claims before it reads.

    The value is made of dict, list, tuple, str, bytes, numbers, None, `TensorRef`, `StorageRef`, `Name` and `Inert`.

    Raises:
        NotTrustedError: it names a global that is not on the list.
        DamagedError: truncated, or not a pickle that PyTorch writes.
    """
    machine = _Machine()
    try:
        return Unpickled(machine.run(stream), machine.storages)
    except (
        ValueError,
        struct.error,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
        RecursionError,
    ) as error:
        raise DamagedError("its pickle is truncated or damaged") from error


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, str] = {}
        self.copied = 0

    def run(self, stream: io.BytesIO | mmap.mmap) -> Any:
        for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", stream)):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name == "INST":
                self.use_global(*str(argument).split(" ", 1))
                raise DamagedError("it builds an object in a way that no checkpoint needs")
            elif name not in _IGNORED:
                raise DamagedError(f"it uses the pickle instruction {name}, which no checkpoint needs")
        raise DamagedError("its pickle has no end")

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self.marked()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise IndexError
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        items = self.marked()
        _expect(self.stack[-1], (list, Inert))
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_item(self, _: Any) -> None:
        value = self.stack.pop()
        self.set_pairs(self.stack.pop(-1), value)

    def set_items(self, _: Any) -> None:
        self.set_pairs(*self.marked())

    def set_pairs(self, *items: Any) -> None:
        target = _expect(self.stack[-1], (dict, Inert))
        pairs = _pairs(items)
        if isinstance(target, dict):
            target.update(pairs)

    def global_name(self, argument: str) -> None:
        self.stack.append(self.use_global(*argument.split(" ", 1)))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.use_global(_expect(module, str), _expect(name, str)))

    @staticmethod
    def use_global(module: str, name: str) -> Name:
        storage = module in ("torch", "torch.cuda") and name in STORAGE_DTYPES
        if not storage and (module, name) not in _BUILDERS and (module, name) not in INERT:
            shown = f"{module}.{name}"[:120]
            raise NotTrustedError(
                f"it asks for '{shown}', which could run code and is not among the few tensor builders that are "
                "read. Nothing was executed"
            )
        return Name(module, name)

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise DamagedError("it calls something that is not a function")
        builder = _BUILDERS.get((function.module, function.name))
        if builder is not None:
            self.stack.append(builder(self, *arguments))
        elif (function.module, function.name) in INERT:
            self.stack.append(Inert())
        else:
            raise DamagedError(f"it calls '{function.module}.{function.name}', which is not a function")

    def build(self, _: Any) -> None:
        self.stack.pop()  # the state: OrderedDict carries `_metadata`, of no use here
        if not isinstance(self.stack[-1], (dict, Inert)):
            raise DamagedError("it sets the state of something that has none")

    def persistent(self, _: Any) -> None:
        kind, storage, key, _location, count, *view = _expect(self.stack.pop(), tuple)
        if kind != "storage" or not isinstance(storage, Name) or storage.name not in STORAGE_DTYPES:
            raise DamagedError("it refers to outside data that is not a tensor storage")
        _natural(count)
        start = 0
        if view and view[0] is not None:  # the form before PyTorch 1.6: a part of another storage
            _, start, count = _expect(view[0], tuple)
        dtype = STORAGE_DTYPES[storage.name]
        if self.storages.setdefault(_expect(key, str), dtype) != dtype:
            raise DamagedError("one storage is said to have two types")
        self.stack.append(StorageRef(key, dtype, _natural(count), _natural(start)))

    def ordered_dict(self, *arguments: Any) -> dict[Any, Any]:
        """`OrderedDict()`, or `OrderedDict([[key, value], ...])` as Python 2 wrote it."""
        if not arguments:
            return {}
        pairs = _expect(arguments[0], list)
        self.copied += len(pairs)
        if self.copied > MAX_COPIED_ITEMS:
            raise DamagedError("it copies the same list too often")
        return _pairs([item for pair in pairs for item in _expect(pair, (list, tuple))[:2]])

    def rebuild_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRef:
        """`torch._utils._rebuild_tensor` and `_v2`; what follows (requires_grad, hooks) is of no use here."""
        storage = _expect(storage, StorageRef)
        sizes = tuple(_natural(n) for n in _expect(size, tuple))
        strides = tuple(_natural(n) for n in _expect(stride, tuple))
        offset = _natural(offset)
        if not view_fits(sizes, strides, offset, storage.count):
            raise DamagedError("a tensor reaches beyond its storage")
        return TensorRef(storage, offset, sizes, strides)

    def rebuild_parameter(self, data: Any, *_: Any) -> TensorRef:
        tensor: TensorRef = _expect(data, TensorRef)
        return tensor


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise DamagedError("its pickle puts a value where none of its kind belongs")
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise DamagedError("a tensor has an impossible size, stride or offset")
    return value


def _pairs(items: Any) -> dict[Any, Any]:
    keys, values = items[0::2], items[1::2]
    if len(keys) != len(values) or not all(map(_is_key, keys)):
        raise DamagedError("a dictionary has keys that are neither text nor small numbers")
    return dict(zip(keys, values, strict=True))


def _is_key(value: Any) -> bool:
    # Nested tuples and huge integers would be hashed anew at each use, which a hostile file can make last for years.
    if isinstance(value, int):
        return value.bit_length() < 64
    return isinstance(value, (str, float, bytes, type(None)))


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _push_marked(make: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def act(machine: _Machine, _: Any) -> None:
        items = machine.marked()  # changes `machine.stack`, so it comes first
        machine.stack.append(make(items))

    return act


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Machine.ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _Machine.rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Machine.rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _Machine.rebuild_parameter,
}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_IGNORED = frozenset({"PROTO", "FRAME"})
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_LIST": _push(list),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_SET": _push(Inert),
    "LIST": _push_marked(list),
    "TUPLE": _push_marked(tuple),
    "DICT": _push_marked(_pairs),
    "FROZENSET": _push_marked(lambda _: Inert()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
