"""Writer: a quantized folder, step by step under a temporary name, complete or not there."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wallx_edge._core import Quantizer
from wallx_edge.computing import RESERVE, free_memory
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.train_config import open_quantizer

__all__ = ["ALIGNMENT", "FORMAT_VERSION", "Written", "data_digest", "quantize", "source_digest"]

FORMAT_VERSION = 1
ALIGNMENT = 64  # of the data in the file, and of every packed tensor [B]
_ITEM = {"F32": 4, "I32": 4, "BF16": 2, "I8": 1}
_BLOCK = 1 << 20
# other weights of the same network, which nothing here reads; what lies in folders with a dot is not the checkpoint's
_LEFT_OUT = (".bin", ".pt", ".ckpt", ".safetensors.index.json", ".part")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What ``quantize`` has written.

    Attributes:
        folder: the output.
        weight_bytes: of its model.safetensors.
        source_bytes: of the source's weights.
        formats: format -> number of packed layers in it.
        source_digest: of :func:`source_digest`.
    """

    folder: Path
    weight_bytes: int
    source_bytes: int
    formats: dict[str, int]
    source_digest: str


def quantize(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    progress: Progress | None = None,
    prepare: Callable[[Quantizer], dict[str, str]] | None = None,
) -> Written:
    """Writes a quantized folder. Blocks, for minutes at full size; holds one layer in memory at a time.

    It is written as OUT.part and renamed at the end. What an interrupted run left there is removed by the next, which
    starts over.

    Args:
        source: folder in the published layout.
        out: folder to make; must not exist or be empty.
        recipe: how.
        progress: called with bytes done and all bytes, on this thread.
        prepare: called before the first step, to set scales; what it returns goes into the file's metadata.

    Raises:
        CheckpointError: the source is damaged, packed already, or has weights that are not finite.
        ConfigError: OUT is taken, or cannot be written; too little memory or disk, said before anything is written;
            the disk became full. There is no OUT then.
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; name another one or remove it")
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{out} is inside the checkpoint {source}; name a folder elsewhere")
    quantizer = open_quantizer(source, recipe.precision, recipe.keep_16bit)
    said = {} if prepare is None else prepare(quantizer)
    plan = _Plan(quantizer)
    files = list(_side_files(source))
    _require_room(out, plan, sum(path.stat().st_size for path in files))
    try:
        with _temporary(out) as part:
            digest = source_digest(source)
            metadata = {
                "format": "pt",
                "wallx_format": str(FORMAT_VERSION),
                "wallx_precision": recipe.precision,
                "wallx_recipe": recipe.text,
                "wallx_source_sha256": digest,
                **said,
            }
            with (part / "model.safetensors").open("wb") as file:
                plan.write(file, metadata, progress or (lambda done, total: None))
                _sync(file)
            for path in files:
                target = part / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as given, target.open("wb") as made:
                    shutil.copyfileobj(given, made)
                    _sync(made)
            written = Written(
                out,
                (part / "model.safetensors").stat().st_size,
                sum(path.stat().st_size for path in _weights(source)),
                plan.formats,
                digest,
            )
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}; nothing is left of it") from error
    return written


class _Plan:
    """Where each step's tensors go: packed layers first, then fp32, then bf16, so that all are aligned."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.formats: dict[str, int] = {}
        steps = []
        for step in range(len(quantizer)):
            tensors = quantizer.tensors(step)
            sizes = [_ITEM[dtype] * math.prod(shape) for _, dtype, shape in tensors]
            if quantizer.is_layer(step):
                kind = quantizer.format(step)
                self.formats[kind] = self.formats.get(kind, 0) + 1
            # what is no multiple of the alignment would move what comes after it
            steps.append((any(size % ALIGNMENT for size in sizes), -_ITEM[tensors[0][1]], step, tensors, sizes))
        layers = [entry for entry in steps if not entry[0]]
        self.steps = layers + sorted(entry for entry in steps if entry[0])
        self.data_bytes = sum(sum(entry[4]) for entry in self.steps)
        self.largest = max((sum(entry[4]) for entry in self.steps), default=0)

    def write(self, file: BinaryIO, metadata: dict[str, str], progress: Progress) -> None:
        """Header, then every step's tensors."""
        header: dict[str, object] = {}
        at = 0
        for _, _, _, tensors, sizes in self.steps:
            for (name, dtype, shape), size in zip(tensors, sizes, strict=True):
                header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
                at += size
        # the digest of the data is known at the end; its place is kept, and has its length
        metadata = {**metadata, "wallx_data_sha256": "0" * 64}
        text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        file.write(struct.pack("<Q", len(text)) + text)
        digest = hashlib.sha256()
        done = 0
        for _, _, step, _, _ in self.steps:
            made = self.quantizer.make(step).data
            for begin in range(0, len(made), 16 * _BLOCK):
                piece = made[begin : begin + 16 * _BLOCK]
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                progress(done, self.data_bytes)
        file.seek(8 + text.index(b'"wallx_data_sha256":"') + len(b'"wallx_data_sha256":"'))
        file.write(digest.hexdigest().encode())


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    # whoever maps it next reads it in large pages; what was written lies in small ones
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    """OUT.part, empty; renamed to OUT if nothing was raised, else removed."""
    part = out.with_name(out.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.mkdir(exist_ok=True)
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{part}: another quantize is writing it") from error
        _empty(part)
        try:
            yield part
            if out.exists():
                out.rmdir()  # empty, or somebody else's by now
            part.rename(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _weights(source: Path) -> set[Path]:
    """The files that hold the network: model*.safetensors, and what an index names."""
    found = {path for path in source.iterdir() if path.suffix == ".safetensors" and path.name.startswith("model")}
    with contextlib.suppress(FileNotFoundError):  # the engine has read it already, and refused what is wrong with it
        index = json.loads((source / "model.safetensors.index.json").read_text(encoding="utf-8"))
        found |= {source / name for name in index["weight_map"].values()}
    return found


def _side_files(source: Path) -> Iterator[Path]:
    """Everything of a checkpoint's folder but weights; hidden folders are not the checkpoint's."""
    weights = _weights(source)
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if not path.is_file() or any(name.startswith(".") for name in inside.parts):
            continue
        if path in weights or path.name.endswith(_LEFT_OUT):
            continue
        yield path


def source_digest(source: str | Path) -> str:
    """sha256 over what ``sha256sum`` says of the checkpoint's weights and side files, in the order of their names.

    Blocks while it reads them all.
    """
    source = Path(source)
    lines = hashlib.sha256()
    for path in sorted({*_weights(source), *_side_files(source)}, key=lambda path: path.relative_to(source).as_posix()):
        lines.update(f"{_digest(path)}  {path.relative_to(source).as_posix()}\n".encode())
    return lines.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def data_digest(path: Path) -> str:
    """sha256 of a safetensors file's data, as its metadata's ``wallx_data_sha256`` should say. Blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise CheckpointError(f"{path}: truncated: {len(head)} bytes")
        file.seek(struct.unpack("<Q", head)[0], os.SEEK_CUR)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _require_room(out: Path, plan: _Plan, side_bytes: int) -> None:
    folder = next(path for path in (out, *out.resolve().parents) if path.exists())
    needed, free = plan.data_bytes + side_bytes + RESERVE, shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{out}: needs {needed / 1e6:.0f} MB of disk, {folder} has {free / 1e6:.0f} MB; make room, or name "
            "another disk"
        )
    needed, free = plan.largest + RESERVE, free_memory()
    if needed > free:
        raise ConfigError(
            f"{out}: needs {needed / 1e6:.0f} MB of memory for the largest layer, this computer has "
            f"{free / 1e6:.0f} MB available; end other programs"
        )
