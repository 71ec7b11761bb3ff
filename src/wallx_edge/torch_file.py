"""Torch file: reads the tensors of a ``torch.save`` file without torch and without executing anything in it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickletools import opcodes
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError

__all__ = ["read_torch_tensors"]

MAX_BYTES = 16 * 1024 * 1024  # of a file; statistics of a hundred robots are 100 kB
MAX_PICKLE_BYTES = 1024 * 1024
MAX_DIMENSIONS = 8
# how files begin that torch wrote before its version 1.6: the same pickle machine, no archive
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# storage class -> its numbers, little endian; "bf16" is widened to float32
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "bf16",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_KEY = re.compile(r"[0-9]{1,9}")


def read_torch_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """Reads a file that ``torch.save`` wrote of a dictionary of plain tensors. Blocks while it reads.

    Only what such a dictionary needs is understood: the zip archive of torch 1.6 and later, its pickle's opcodes for
    strings, numbers, tuples and dictionaries, the storages, and the one call that makes a tensor of a storage. The
    calls are compared by name and answered here; nothing is imported or called that the file names.

    Args:
        path: such as ``normalizer_action.pth``.

    Returns:
        name -> array, read-only, bfloat16 as float32; may share memory.

    Raises:
        CheckpointError: the file cannot be read, is damaged, in the older format, larger than 16 MiB, or holds
            anything but tensors by name; the message names it.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{path}: {size} bytes, expected {MAX_BYTES} at most for a file of statistics")
        with path.open("rb") as file:
            head = file.read(len(_LEGACY))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head == _LEGACY:
        raise CheckpointError(
            f"{path}: is in torch's format from before version 1.6; load it with torch and save it again"
        )
    if not head.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path}: begins with {head[:4]!r}, expected the zip archive that torch.save writes")
    with _Archive(path) as archive:
        pickle = archive.read("data.pkl")
        if len(pickle) > MAX_PICKLE_BYTES:
            archive.fail(f"data.pkl has {len(pickle)} bytes, expected {MAX_PICKLE_BYTES} at most")
        value = _Machine(archive).run(pickle)
        if not isinstance(value, _Dict):
            raise CheckpointError(f"{path}: holds {_what(value)}, expected a dictionary of tensors")
        tensors: dict[str, NDArray[Any]] = {}
        for name, entry in value.items.items():
            if not isinstance(entry, np.ndarray):
                raise CheckpointError(f"{path}: {name!r:.80} is {_what(entry)}, expected a tensor")
            tensors[name] = entry
        return tensors


class _Archive:
    """The zip archive: stored entries only, each of a known length within the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory may raise anything from struct.error to UnicodeDecodeError
            raise CheckpointError(f"{path}: not a zip archive: {error}") from error
        try:
            self._entries = self._list()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        folders = set()
        for info in self._zip.infolist():
            folder, separator, name = info.filename.partition("/")
            if not separator or name in entries:
                self.fail(f"entry {info.filename!r:.80} is not torch's, or there twice")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                self.fail(f"entry {info.filename!r:.80} is compressed; torch.save stores its entries as they are")
            folders.add(folder)
            entries[name] = info
        if len(folders) != 1 or "data.pkl" not in entries:
            self.fail("has no single data.pkl, expected what torch.save writes")
        # never more than the file has, however the entries overlap
        if sum(info.file_size for info in entries.values()) > MAX_BYTES:
            self.fail(f"its entries claim more than {MAX_BYTES} bytes")
        return entries

    def fail(self, what: str) -> NoReturn:
        """Raises a CheckpointError about the file."""
        raise CheckpointError(f"{self.path}: {what}")

    def read(self, name: str) -> bytes:
        """Content of an entry; its checksum is compared."""
        if name not in self._entries:
            self.fail(f"entry {name} is missing")
        info = self._entries[name]
        try:
            data = self._zip.read(info)
        except Exception as error:  # as above
            raise CheckpointError(f"{self.path}: entry {name} is damaged: {error!s:.200}") from error
        if len(data) != info.file_size:
            self.fail(f"entry {name} has {len(data)} bytes, the archive says {info.file_size}")
        return data

    def byte_order(self) -> None:
        """Refuses big-endian numbers; files without the entry are older and little-endian."""
        if "byteorder" in self._entries and self.read("byteorder") != b"little":
            self.fail(f"byteorder is {self.read('byteorder')!r:.20}, expected little")


@dataclass(frozen=True)
class _Global:
    """A name that the file asks for; never resolved."""

    name: str


class _Mark:
    """Where a tuple or a list of dictionary items begins."""


class _Dict:
    """A dictionary of the file, and whether it was made as an OrderedDict."""

    def __init__(self, is_ordered: bool) -> None:
        self.is_ordered = is_ordered
        self.items: dict[str, Any] = {}


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row."""

    values: NDArray[Any]


def _what(value: object) -> str:
    if isinstance(value, _Global):
        return f"the class or function {value.name!r:.80}"
    names = {_Dict: "a dictionary", _Storage: "a storage", _Mark: "a mark", np.ndarray: "a tensor"}
    return names.get(type(value), f"a {type(value).__name__}")


class _Machine:
    """The pickle machine, reduced to what a dictionary of tensors needs."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, tuple[str, _Storage]] = {}
        self._data = b""
        self._at = 0
        archive.byte_order()

    def run(self, data: bytes) -> object:
        """Executes the pickle and returns what it leaves.

        Raises:
            CheckpointError: an opcode, class or argument that plain tensors do not need, or a damaged pickle.
        """
        self._data, self._at = data, 0
        while True:
            code = self._take(1)
            if code == b".":
                value = self._pop()
                if self._stack or self._at != len(data):
                    self._fail("leaves something behind its STOP")
                return value
            operation = _OPERATIONS.get(code)
            if operation is None:
                name = next((o.name for o in opcodes if o.code == code.decode("latin-1")), repr(code))
                self._fail(f"has the opcode {name}, which plain tensors do not need")
            operation(self)

    def _fail(self, what: str) -> NoReturn:
        self._archive.fail(f"data.pkl {what} (byte {self._at}); nothing but plain tensors in a dictionary is read")

    def _take(self, number: int) -> bytes:
        taken = self._data[self._at : self._at + number]
        if len(taken) != number:
            self._fail("ends too early")
        self._at += number
        return taken

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return int(value)

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._fail("ends too early")
        return self._text(self._take(end + 1 - self._at)[:-1])

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._fail("has text that is not UTF-8")

    def _pop(self) -> Any:
        if not self._stack:
            self._fail("takes from an empty stack")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[i], _Mark):
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        self._fail("has no mark where one is needed")

    # --- opcodes

    def protocol(self) -> None:
        version = self._number("B")
        if version != 2:
            self._fail(f"has protocol {version}, expected 2, which torch.save writes")

    def push(self, value: object) -> None:
        self._stack.append(value)

    def unicode(self) -> None:
        self.push(self._text(self._take(self._number("<I"))))

    def global_name(self) -> None:
        name = f"{self._line()} {self._line()}"
        if name not in (_ORDERED_DICT, _TENSOR) and name not in _STORAGES:
            self._fail(f"asks for {name!r:.80}")
        self.push(_Global(name))

    def put(self, layout: str) -> None:
        if not self._stack:
            self._fail("remembers the top of an empty stack")
        self._memo[self._number(layout)] = self._stack[-1]

    def get(self, layout: str) -> None:
        key = self._number(layout)
        if key not in self._memo:
            self._fail(f"recalls {key}, which was never remembered")
        self.push(self._memo[key])

    def make_tuple(self, number: int | None) -> None:
        items = self._since_mark() if number is None else [self._pop() for _ in range(number)][::-1]
        self.push(tuple(items))

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, _Dict) or len(items) % 2:
            self._fail(f"sets items of {_what(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                self._fail(f"has {_what(key)} as a name, expected text")
            target.items[key] = value

    def set_item(self) -> None:
        value = self._pop()
        self.set_items([self._pop(), value])

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1] if self._stack else None
        is_metadata = isinstance(state, _Dict) and set(state.items) <= {"_metadata"}
        # a module's state_dict carries its version numbers as an attribute; they say nothing here
        if not isinstance(target, _Dict) or not target.is_ordered or not is_metadata:
            self._fail(f"gives attributes to {_what(target)}")

    def persistent(self) -> None:
        match self._pop():
            case ("storage", _Global(name=name), str() as key, str(), int() as number) if (
                name in _STORAGES and type(number) is int
            ):
                self.push(self._storage(_STORAGES[name], key, number))
            case other:
                self._fail(f"refers to {_what(other)} outside of the pickle, expected a storage")

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        match function, arguments:
            case _Global(name=name), () if name == _ORDERED_DICT:
                self.push(_Dict(is_ordered=True))
            case _Global(name=name), tuple() if name == _TENSOR:
                self.push(self._tensor(arguments))
            case _:
                self._fail(f"calls {_what(function)} with {_what(arguments)}")

    def _storage(self, layout: str, key: str, number: int) -> _Storage:
        if not _KEY.fullmatch(key):
            self._fail(f"has a storage named {key!r:.40}, expected a number")
        if key not in self._storages:
            data = self._archive.read(f"data/{key}")
            if layout == "bf16":
                wide = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint32) << np.uint32(16)
                values, width = wide.view(np.float32), 2
            else:
                width = np.dtype(layout).itemsize
                # a byte other than 0 or 1 is no boolean, and numpy would not say so
                if layout == "?" and data.strip(b"\0\1"):
                    self._fail(f"has a storage {key} with a byte that is no boolean")
                values = np.frombuffer(data[: len(data) // width * width], layout)
            if number < 0 or len(data) != number * width:
                self._fail(f"says {number} numbers of {width} bytes for storage {key}, which has {len(data)} bytes")
            values.flags.writeable = False
            self._storages[key] = layout, _Storage(values)
        known, storage = self._storages[key]
        if known != layout or storage.values.size != number:
            self._fail(f"describes storage {key} in two ways")
        return storage

    def _tensor(self, arguments: tuple[Any, ...]) -> NDArray[Any]:
        match arguments:
            case (_Storage(values=values), offset, tuple() as sizes, tuple() as strides, bool(), _Dict() as hooks):
                pass
            case _:
                self._fail("makes a tensor of something else than a storage, an offset, sizes and strides")
        if hooks.items:
            self._fail("has a tensor with hooks")
        if len(sizes) != len(strides) or len(sizes) > MAX_DIMENSIONS:
            self._fail(f"has a tensor of {len(sizes)} sizes and {len(strides)} strides, expected as many, up to 8")
        if not all(type(n) is int and n >= 0 for n in (offset, *sizes, *strides)):
            self._fail("has a tensor whose offset, sizes or strides are not whole numbers, 0 or more")
        elements, last = 1, offset
        for count, stride in zip(sizes, strides, strict=True):
            elements *= count
            last += (count - 1) * stride
        # as many as the storage has, so that zero strides do not blow a number up to gigabytes
        if elements > values.size or (elements and last >= values.size):
            self._fail(
                f"has a tensor of sizes {sizes}, strides {strides}, offset {offset} in a storage of {values.size}"
            )
        if elements == 0:
            return np.zeros(sizes, values.dtype)
        steps = [stride * values.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], sizes, steps, writeable=False)


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,  # PROTO
    b"(": lambda m: m.push(_Mark()),  # MARK
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"}": lambda m: m.push(_Dict(is_ordered=False)),  # EMPTY_DICT
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"K": lambda m: m.push(m._number("B")),  # BININT1
    b"M": lambda m: m.push(m._number("<H")),  # BININT2
    b"J": lambda m: m.push(m._number("<i")),  # BININT
    b"X": _Machine.unicode,  # BINUNICODE
    b"c": _Machine.global_name,  # GLOBAL
    b"q": lambda m: m.put("B"),  # BINPUT
    b"r": lambda m: m.put("<I"),  # LONG_BINPUT
    b"h": lambda m: m.get("B"),  # BINGET
    b"j": lambda m: m.get("<I"),  # LONG_BINGET
    b"t": lambda m: m.make_tuple(None),  # TUPLE
    b"\x85": lambda m: m.make_tuple(1),  # TUPLE1
    b"\x86": lambda m: m.make_tuple(2),  # TUPLE2
    b"\x87": lambda m: m.make_tuple(3),  # TUPLE3
    b"u": lambda m: m.set_items(m._since_mark()),  # SETITEMS
    b"s": _Machine.set_item,  # SETITEM
    b"b": _Machine.build,  # BUILD
    b"Q": _Machine.persistent,  # BINPERSID
    b"R": _Machine.reduce,  # REDUCE
}
