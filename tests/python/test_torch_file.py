"""The reader of torch files: plain tensors as torch reads them, and nothing else, whatever the file says."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import wallx_edge.torch_file as module
from golden import CASES, read_safetensors
from wallx_edge.errors import CheckpointError
from wallx_edge.torch_file import read_torch_tensors

FILES = sorted(path for case in CASES for path in case.glob("normalizer_*.pth"))
CODES = {"<f4": "Float", "<f8": "Double", "<f2": "Half", "<i8": "Long", "<i4": "Int", "<i2": "Short", "|i1": "Char"}
CODES |= {"|u1": "Byte", "|b1": "Bool"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(storage: str, count: int, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """The pickle of one tensor in storage 0."""
    persistent = b"(" + text("storage") + f"ctorch\n{storage}Storage\n".encode() + text("0") + text("cpu")
    arguments = persistent + number(count) + b"tQ" + number(offset) + numbers(sizes) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"


def named(body: bytes) -> bytes:
    """The pickle of a dictionary with one entry."""
    return b"\x80\x02}" + text("min.x") + body + b"s."


def write(path: Path, pickled: bytes, storages: list[bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, data in enumerate(storages):
            archive.writestr(f"archive/data/{i}", data)
        archive.writestr("archive/byteorder", "little")
    return path


def write_array(path: Path, values: NDArray[Any], strides: tuple[int, ...] | None = None) -> Path:
    contiguous = tuple(s // values.itemsize for s in values.strides)
    body = tensor(CODES[values.dtype.str], values.size, values.shape, strides or contiguous)
    return write(path, named(body), [values.tobytes()])


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_equals_what_torch_loads(path: Path) -> None:
    """The cases hold the loaded vectors beside the files."""
    inputs = read_safetensors(path.parent / "inputs.safetensors")
    kind = path.stem.removeprefix("normalizer_")
    tensors = read_torch_tensors(path)
    assert len(tensors) == 2
    for name, value in tensors.items():
        expected = inputs[f"norm.{kind}_{name.split('.')[0]}"]
        assert value.dtype == np.float32
        assert value.tobytes() == expected.tobytes()
        assert not value.flags.writeable


def test_the_cases_hold_such_files() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("dtype", CODES)
def test_every_plain_type(dtype: str, tmp_path: Path) -> None:
    values = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    got = read_torch_tensors(write_array(tmp_path / "a.pth", values))["min.x"]
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values)


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", named(tensor("BFloat16", 3, (3,), (1,))), [bytes.fromhex("803f00c0c03f")])
    got = read_torch_tensors(path)["min.x"]
    assert got.dtype == np.float32
    assert got.tolist() == [1.0, -2.0, 1.5]


def test_views_and_empty_tensors(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.float32)
    storages = [data.tobytes()]

    def read(sizes: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> NDArray[Any]:
        path = write(tmp_path / "a.pth", named(tensor("Float", 12, sizes, strides, offset)), storages)
        return read_torch_tensors(path)["min.x"]

    np.testing.assert_array_equal(read((4, 3), (1, 4)), data.reshape(3, 4).T)
    np.testing.assert_array_equal(read((2, 2), (4, 2), 5), [[5, 7], [9, 11]])
    np.testing.assert_array_equal(read((3, 2), (1, 0)), [[0, 0], [1, 1], [2, 2]])
    assert read((), (), 11) == 11
    assert read((0, 7), (7, 1)).shape == (0, 7)


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((2,), (12,), 0),
        ((4, 3), (3, 2), 0),
        ((2**31 - 1,), (0,), 0),
        ((2**31 - 1, 2**31 - 1), (0, 0), 0),
        ((2,), (2**31 - 1,), 2**31 - 1),
        ((-1,), (1,), 0),
        ((2,), (-1,), 5),
        ((2,), (1,), -1),
        ((3,), (1, 1), 0),
        ((1,) * 9, (1,) * 9, 0),
        ((), (), 12),
    ],
)
def test_a_tensor_never_leaves_its_storage(
    sizes: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    body = tensor("Float", 12, sizes, strides, offset)
    path = write(tmp_path / "a.pth", named(body), [np.arange(12, dtype=np.float32).tobytes()])
    with pytest.raises(CheckpointError, match=r"a\.pth: data\.pkl has a tensor"):
        read_torch_tensors(path)


class Hostile:
    """Pickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(canary: Path) -> dict[str, bytes]:
    command = f"touch {canary}".encode()
    return {
        "GLOBAL": b"\x80\x02cos\nsystem\n(" + text(command.decode()) + b"tR.",
        "GLOBAL inside": named(b"cos\nsystem\n(" + text(command.decode()) + b"tR"),
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        "STACK_GLOBAL in protocol 2": b"\x80\x02" + text("os") + text("system") + b"\x93.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "INST in protocol 2": b"\x80\x02(" + text(command.decode()) + b"ios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\n" + text(command.decode()) + b"o.",
        "NEWOBJ": b"\x80\x02cbuiltins\nobject\n)\x81.",
        "EXT1": b"\x80\x02\x82\x01.",
        "exec": pickle.dumps(Hostile(exec, f"open({str(canary)!r}, 'w')"), 2),
        "exec, protocol 4": pickle.dumps({"min.x": Hostile(exec, f"open({str(canary)!r}, 'w')")}, 4),
        "getattr": b"\x80\x02cbuiltins\ngetattr\n.",
        "dotted": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "set state": b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__class__") + number(1) + b"sb.",
        "hooks": named(tensor("Float", 1, (1,), (1,)).replace(b")RtR", b")R" + text("a") + number(1) + b"stR")),
        "call a tensor": named(tensor("Float", 1, (1,), (1,)) + b")R"),
        "call a dictionary": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "arguments of OrderedDict": b"\x80\x02ccollections\nOrderedDict\n(NtR.",
        "a subclass": b"\x80\x02ctorch.nn.parameter\nParameter\n)R.",
        "sparse": b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.",
        "names that are numbers": b"\x80\x02}K\x01" + tensor("Float", 1, (1,), (1,)) + b"s.",
        "a number": named(number(3)),
        "a text": named(text("x")),
        "a dictionary": named(b"}"),
        "a storage": named(
            b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(1) + b"tQ"
        ),
        "a list": b"\x80\x02].",
        "no dictionary": b"\x80\x02" + tensor("Float", 1, (1,), (1,)) + b".",
        "itself": b"\x80\x02}q\x00" + text("min.x") + b"h\x00s.",
        "another key": named(tensor("Float", 1, (1,), (1,)).replace(text("0"), text("../0"))),
        "a missing storage": named(tensor("Float", 1, (1,), (1,)).replace(text("0"), text("7"))),
        "another length": named(tensor("Float", 2, (1,), (1,))),
        "a negative length": named(tensor("Float", -1, (0,), (1,))),
        "two types": b"\x80\x02}"
        + text("a")
        + tensor("Float", 1, (1,), (1,))
        + b"s"
        + text("b")
        + tensor("Int", 1, (1,), (1,))
        + b"s.",
        "a persistent text": b"\x80\x02" + text("storage") + b"Q.",
        "PERSID": b"\x80\x02P0\n.",
        "an empty stack": b"\x80\x02R.",
        "no mark": b"\x80\x02t.",
        "unknown memo": b"\x80\x02h\x05.",
        "no stop": b"\x80\x02}",
        "behind the stop": named(tensor("Float", 1, (1,), (1,))) + b"cos\nsystem\n.",
        "more on the stack": b"\x80\x02}}.",
        "bad text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "a long text": b"\x80\x02X\xff\xff\xff\xffabc",
        "no opcode": b"\x80\x02\xff.",
        "nothing": b"",
        "too long": b"\x80\x02" + b"}" * (1024 * 1024) + b".",
        "module pickles": pickle.dumps(OrderedDict(a=1), 5),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_anything_else_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = write(tmp_path / "a.pth", hostile(canary)[name], [b"\0" * 4])
    with pytest.raises(CheckpointError, match=r"a\.pth: ") as caught:
        read_torch_tensors(path)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert not canary.exists()


def test_messages_name_what_is_there(tmp_path: Path) -> None:
    cases = hostile(tmp_path / "canary")
    for name, word in (
        ("GLOBAL", "'os system'"),
        ("STACK_GLOBAL", "protocol 4"),
        ("STACK_GLOBAL in protocol 2", "opcode STACK_GLOBAL"),
        ("INST in protocol 2", "opcode INST"),
        ("NEWOBJ", "'builtins object'"),
        ("a subclass", "'torch.nn.parameter Parameter'"),
        ("a text", "'min.x' is a str"),
        ("a missing storage", "entry data/7 is missing"),
    ):
        path = write(tmp_path / "a.pth", cases[name], [b"\0" * 4])
        with pytest.raises(CheckpointError) as caught:
            read_torch_tensors(path)
        assert word in str(caught.value), name


def archive_bytes(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = [("a/data.pkl", named(tensor("Float", 1, (1,), (1,)))), ("a/data/0", b"\0\0\x80\x3f")]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (archive_bytes(GOOD, zipfile.ZIP_DEFLATED), "is compressed"),
        (archive_bytes([("a/data.pkl", b"\0" * (15 * 1024 * 1024))], zipfile.ZIP_DEFLATED), "is compressed"),
        (archive_bytes([("data.pkl", GOOD[0][1])]), "not torch's"),
        (archive_bytes([*GOOD, ("b/data/1", b"")]), "no single data.pkl"),
        (archive_bytes([GOOD[1]]), "no single data.pkl"),
        (archive_bytes([*GOOD, ("a/byteorder", b"big")]), "byteorder is b'big'"),
        (archive_bytes([("a/data.pkl", b"}" * (2 * 1024 * 1024))]), "data.pkl has 2097152 bytes"),
        (archive_bytes(GOOD)[:-1], "not a zip archive"),
        (b"PK\x03\x04", "not a zip archive"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "before version 1.6"),
        (b"", "begins with b''"),
        (pickle.dumps({"min.x": 1}), "expected the zip archive"),
        (b"\0" * (16 * 1024 * 1024 + 1), "16777217 bytes, expected 16777216"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_archive_is_refused(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_torch_tensors(path)
    assert word in str(caught.value)


def test_an_entry_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(archive_bytes([*GOOD, GOOD[1]]))
    with pytest.raises(CheckpointError, match="there twice"):
        read_torch_tensors(path)


def test_entries_that_overlap_do_not_multiply(tmp_path: Path) -> None:
    """A bomb of many directory entries that all point at the same large bytes."""
    large = b"\0" * (4 * 1024 * 1024)
    plain = archive_bytes([*GOOD, *((f"a/data/{i}", large if i == 10 else b"") for i in range(10, 50))])
    directory = bytearray(plain)
    first = plain.rindex(b"a/data/10") - 46
    for i in range(11, 50):
        at = plain.rindex(f"a/data/{i}".encode()) - 46
        directory[at + 16 : at + 28] = plain[first + 16 : first + 28]
        directory[at + 42 : at + 46] = plain[first + 42 : first + 46]
    path = tmp_path / "a.pth"
    path.write_bytes(bytes(directory))
    with pytest.raises(CheckpointError, match=r"claim more than|not a zip archive"):
        read_torch_tensors(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"b\.pth: cannot be read: No such file"):
        read_torch_tensors(tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_torch_tensors(tmp_path)


def mutate(data: bytes, source: random.Random) -> bytes:
    """One to four small damages."""
    out = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(out) or 1)
        match source.randrange(5):
            case 0:
                out[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                out[at : at + 1] = bytes([source.choice(b"\x00\xff\x80().RbcsutqQh}X\x93\x85i")])
            case 2:
                del out[at : at + source.randint(1, 8)]
            case 3:
                out[at:at] = source.randbytes(source.randint(1, 8))
            case _:
                out[at : at + 4] = struct.pack("<I", source.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    return bytes(out)


def test_damaged_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage to whole files, and to the pickle alone with the archive made anew, so that its checksum holds."""
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("the pickle module was asked"))
    source = random.Random(20)
    path = tmp_path / "a.pth"
    outcomes = {"read": 0, "refused": 0}
    for i in range(6000):
        original = source.choice(FILES)
        if i % 3 == 0:
            content = mutate(original.read_bytes(), source)
        else:
            with zipfile.ZipFile(original) as archive:
                entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
            hit = 0 if i % 3 == 1 else source.randrange(len(entries))
            entries[hit] = entries[hit][0], mutate(entries[hit][1], source)
            content = archive_bytes(entries)
        path.write_bytes(content)
        try:
            tensors = read_torch_tensors(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
        else:
            assert all(value.size <= 26 for value in tensors.values())
            assert all(len(value.tobytes()) == value.nbytes for value in tensors.values())  # every byte is there
            outcomes["read"] += 1
    assert min(outcomes.values()) > 100


def test_nothing_of_the_pickle_module_is_used() -> None:
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert "import pickle\n" not in source
    assert all(word not in source for word in ("eval(", "exec(", "getattr(", "__import__", "importlib"))
