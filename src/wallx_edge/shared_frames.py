"""Shared frames: pictures and numbers that one process writes and others read, in a file in memory."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError, DeviceError

__all__ = ["FrameReader", "FrameWriter", "SharedFrame"]

MAGIC = b"wallxfr1"
_HEAD = struct.Struct("<8sI")  # magic, size of the description
_SLOT = struct.Struct("<QqII")  # sequence, captured_at [ns], checksum, 0
SLOTS = 3  # a reader has two writes' time to copy one
MAX_DESCRIPTION = 65536  # bytes
MAX_BYTES = 1 << 28


class SharedFrame(NamedTuple):
    """One of a channel."""

    array: NDArray[Any]  # a copy
    captured_at: float  # CLOCK_MONOTONIC [s]
    sequence: int  # counts from 1


class _Channel:
    """Where a channel's slots lie: each a head, then the array's bytes."""

    def __init__(self, shape: tuple[int, ...], dtype: str, begin: int) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.num_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._pitch = -(-(_SLOT.size + self.num_bytes) // 64) * 64
        self._begin = begin
        self.end = begin + SLOTS * self._pitch

    def at(self, sequence: int) -> int:
        return self._begin + sequence % SLOTS * self._pitch


def _channels(description: Mapping[str, Any]) -> dict[str, _Channel]:
    found, begin = {}, 4096 * 17  # behind head and description
    for name, entry in description.items():
        found[name] = _Channel(tuple(int(n) for n in entry["shape"]), str(entry["dtype"]), begin)
        begin = found[name].end
    return found


class FrameWriter:
    """Makes the file and writes to it; one process and thread. The file is gone when it is closed.

    A slot's checksum is written with it: a reader that was overtaken, or whose processor saw the writes in another
    order, notices and reads the newest again.
    """

    def __init__(self, path: Path, channels: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Makes the file anew, for its owner only; one that a killed process left is replaced.

        Args:
            path: in a file system in memory, such as ``/dev/shm``.
            channels: name -> shape, dtype.

        Raises:
            DeviceError: it cannot be made, or another program writes there.
        """
        self._path = path
        description = {name: {"shape": list(shape), "dtype": dtype} for name, (shape, dtype) in channels.items()}
        self._channels = _channels(description)
        self._sequences = dict.fromkeys(self._channels, 0)
        text = json.dumps(description).encode()
        size = max(channel.end for channel in self._channels.values())
        if len(text) > MAX_DESCRIPTION or size > MAX_BYTES:
            raise DeviceError(f"shared frames {path}: {size} bytes of channels, at most {MAX_BYTES}")
        part = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = -1
        try:
            _refuse_owned(path)
            self._file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as this process lives
            os.truncate(self._file, size)
            self._memory = mmap.mmap(self._file, size)
            self._memory[: _HEAD.size + len(text)] = _HEAD.pack(MAGIC, len(text)) + text
            part.replace(path)
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
            with contextlib.suppress(OSError):
                part.unlink()
            raise DeviceError(f"shared frames {path} cannot be made: {error.strerror or error}") from error

    def write(self, name: str, array: NDArray[Any], captured_at_ns: int) -> None:
        """The newest of a channel.

        Args:
            name: of the channel.
            array: of its shape and dtype.
            captured_at_ns: CLOCK_MONOTONIC [ns]
        """
        channel = self._channels[name]
        data = np.ascontiguousarray(array, channel.dtype).tobytes()
        assert len(data) == channel.num_bytes, f"{name}: {array.shape}, expected {channel.shape}"
        sequence = self._sequences[name] + 1
        at = channel.at(sequence)
        self._memory[at + _SLOT.size : at + _SLOT.size + len(data)] = data
        head = struct.pack("<Qq", sequence, captured_at_ns)
        self._memory[at : at + _SLOT.size] = head + struct.pack("<II", zlib.crc32(data, zlib.crc32(head)), 0)
        self._sequences[name] = sequence

    def close(self) -> None:
        """Removes the file; readers see that nothing new comes. May be called again."""
        if self._memory.closed:
            return
        self._memory.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                self._path.unlink()
        os.close(self._file)


def _refuse_owned(path: Path) -> None:
    """A file whose writer lives is its own."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeviceError(
            f"shared frames {path}: another program writes there; stop it, or name another file"
        ) from None
    finally:
        os.close(file)


class FrameReader:
    """Reads what another process writes. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        """Maps the file.

        Raises:
            DeviceError: nobody writes there, or it is no such file.
        """
        self._path = path
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(
                f"shared frames {path}: {error.strerror}; start what writes them first: wallx-edge sim ... --frames"
            ) from error
        try:
            size = os.fstat(file).st_size
            if size < _HEAD.size:
                raise DeviceError(f"shared frames {path}: {size} bytes are no frames")
            self._memory = mmap.mmap(file, size, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        try:
            magic, length = _HEAD.unpack_from(self._memory)
            if magic != MAGIC or length > MAX_DESCRIPTION:
                raise DeviceError(f"shared frames {path}: this is another file, or of another version")
            description = json.loads(self._memory[_HEAD.size : _HEAD.size + length])
            self._channels = _channels(description)
            if max(channel.end for channel in self._channels.values()) > size:
                raise DeviceError(f"shared frames {path}: the file is cut short")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._memory.close()
            raise DeviceError(f"shared frames {path}: its description is damaged: {error}") from error
        except BaseException:
            self._memory.close()
            raise

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a channel's arrays.

        Raises:
            ConfigError: no such channel.
        """
        return self._channel(name).shape

    def newest(self, name: str) -> SharedFrame | None:
        """The newest of a channel; ``None`` before the first.

        Raises:
            ConfigError: no such channel.
        """
        channel = self._channel(name)
        for _ in range(100):
            heads = [(_SLOT.unpack_from(self._memory, channel.at(slot)), channel.at(slot)) for slot in range(SLOTS)]
            (sequence, captured_at, checksum, _), at = max(heads)
            if sequence == 0:
                return None
            data = self._memory[at + _SLOT.size : at + _SLOT.size + channel.num_bytes]
            if zlib.crc32(data, zlib.crc32(struct.pack("<Qq", sequence, captured_at))) == checksum:
                array = np.frombuffer(data, channel.dtype).reshape(channel.shape)
                return SharedFrame(array, captured_at * 1e-9, int(sequence))
        raise DeviceError(f"shared frames {self._path}: {name} is written faster than it can be read")

    def close(self) -> None:
        """Lets go of the file; may be called again."""
        self._memory.close()

    def _channel(self, name: str) -> _Channel:
        if name not in self._channels:
            raise ConfigError(f"shared frames {self._path}: no {name!r}; there are {', '.join(self._channels)}")
        return self._channels[name]
