"""Mcap: writes and reads the container format MCAP 0, in chunks that are whole on the disk once they are flushed.

Format: https://mcap.dev/spec. Chunks are not compressed: pictures are JPEG already.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from wallx_edge.errors import ConfigError

__all__ = ["McapFile", "McapWriter", "Message", "read_mcap"]

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = 1, 2, 3, 4, 5, 6, 7, 8
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
MAX_RECORD = 1 << 30  # of a file that is read: more is damage [bytes]


class Message(NamedTuple):
    """One message of a file."""

    topic: str
    log_time: int  # CLOCK_MONOTONIC [ns]
    data: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its content, of a channel that is JSON."""
        content: dict[str, Any] = json.loads(self.data)
        return content


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _map(values: Mapping[str, str]) -> bytes:
    data = b"".join(_text(key) + _text(value) for key, value in values.items())
    return struct.pack("<I", len(data)) + data


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


@dataclass
class _Channel:
    number: int
    record: bytes
    count: int = 0
    index: list[tuple[int, int]] = field(default_factory=list)  # of the open chunk: time, offset


class McapWriter:
    """Writes messages into a chunk in memory; :meth:`flush` puts it into the file. Not thread-safe.

    Whatever ends the program, the file holds every flushed chunk; one that was not closed has no index, and readers
    go through it from the front. A write that fails is taken back, so that the file stays readable, and raised.
    """

    def __init__(self, file: BinaryIO, library: str, metadata: Mapping[str, Mapping[str, str]]) -> None:
        """Begins a file.

        Args:
            file: unbuffered, seekable, empty; stays the caller's to close.
            library: what writes it.
            metadata: name -> keys and values.

        Raises:
            OSError: it cannot be written.
        """
        self._file = file
        self.size = 0  # flushed [bytes]
        self._schemas: list[bytes] = []
        self._channels: dict[str, _Channel] = {}
        self._open = bytearray()
        self._open_span: tuple[int, int] | None = None  # first and last time of the open chunk [ns]
        self._span: tuple[int, int] | None = None  # of the file [ns]
        self._chunks: list[bytes] = []
        self._metadata_index: list[bytes] = []
        head = MAGIC + _record(HEADER, _text("") + _text(library))
        for name, values in metadata.items():
            record = _record(METADATA, _text(name) + _map(values))
            self._metadata_index.append(
                _record(METADATA_INDEX, struct.pack("<QQ", len(head), len(record)) + _text(name))
            )
            head += record
        self._put(head)

    def add_channel(self, topic: str, schema_name: str, schema: str) -> None:
        """Announces a channel of JSON messages.

        Args:
            topic: of the channel.
            schema_name: of its messages.
            schema: JSON Schema.
        """
        number = len(self._channels) + 1
        definition = _text(schema_name) + _text("jsonschema") + _text(schema)
        self._schemas.append(_record(SCHEMA, struct.pack("<H", number) + definition))
        channel = struct.pack("<HH", number, number) + _text(topic) + _text("json") + _map({})
        self._channels[topic] = _Channel(number, _record(CHANNEL, channel))
        # in the chunk too: a file without an index is read from the front
        self._open += self._schemas[-1] + self._channels[topic].record

    @property
    def num_pending(self) -> int:
        """Bytes that :meth:`flush` would write."""
        return len(self._open)

    def add(self, topic: str, log_time: int, data: bytes) -> None:
        """Adds a message to the open chunk. Writes nothing.

        Args:
            topic: of a channel that was announced.
            log_time: CLOCK_MONOTONIC [ns].
            data: JSON.
        """
        channel = self._channels[topic]
        channel.index.append((log_time, len(self._open)))
        self._open += _record(MESSAGE, struct.pack("<HIQQ", channel.number, channel.count, log_time, log_time) + data)
        channel.count += 1
        self._open_span = _join(self._open_span, (log_time, log_time))

    def flush(self) -> None:
        """Writes the open chunk. Blocks for the disk.

        Raises:
            OSError: it cannot be written; the chunk is lost, the file ends with the one before.
        """
        span = self._open_span
        if span is None:
            return
        body = bytes(self._open)
        self._open.clear()
        self._open_span = None
        times = struct.pack("<QQ", *span)
        chunk = _record(
            CHUNK,
            times + struct.pack("<QI", len(body), zlib.crc32(body)) + _text("") + struct.pack("<Q", len(body)) + body,
        )
        start, offsets, indexes = self.size, b"", b""
        for channel in self._channels.values():
            if not channel.index:
                continue
            offsets += struct.pack("<HQ", channel.number, start + len(chunk) + len(indexes))
            entries = b"".join(struct.pack("<QQ", *entry) for entry in channel.index)
            indexes += _record(MESSAGE_INDEX, struct.pack("<HI", channel.number, len(entries)) + entries)
            channel.index.clear()
        self._put(chunk + indexes)
        self._chunks.append(
            _record(
                CHUNK_INDEX,
                times
                + struct.pack("<QQI", start, len(chunk), len(offsets))
                + offsets
                + struct.pack("<Q", len(indexes))
                + _text("")
                + struct.pack("<QQ", len(body), len(body)),
            )
        )
        self._span = _join(self._span, span)

    def finish(self) -> None:
        """Flushes, and writes the index. Blocks for the disk.

        Raises:
            OSError: as :meth:`flush`.
        """
        self.flush()
        groups = [
            (SCHEMA, self._schemas),
            (CHANNEL, [channel.record for channel in self._channels.values()]),
            (STATISTICS, [self._statistics()]),
            (CHUNK_INDEX, self._chunks),
            (METADATA_INDEX, self._metadata_index),
        ]
        data_end = _record(DATA_END, struct.pack("<I", 0))
        start = self.size + len(data_end)
        summary, offsets = b"", b""
        for opcode, records in groups:
            group = b"".join(records)
            if group:
                offsets += _record(SUMMARY_OFFSET, struct.pack("<BQQ", opcode, start + len(summary), len(group)))
            summary += group
        footer = struct.pack("<BQQQ", FOOTER, 20, start, start + len(summary))
        checksum = zlib.crc32(summary + offsets + footer)
        self._put(data_end + summary + offsets + footer + struct.pack("<I", checksum) + MAGIC)

    def _statistics(self) -> bytes:
        counts = b"".join(struct.pack("<HQ", c.number, c.count) for c in self._channels.values())
        head = struct.pack(
            "<QHIIII",
            sum(channel.count for channel in self._channels.values()),
            len(self._schemas),
            len(self._channels),
            0,
            len(self._metadata_index),
            len(self._chunks),
        )
        return _record(STATISTICS, head + struct.pack("<QQI", *(self._span or (0, 0)), len(counts)) + counts)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            # half a record is of no use; to make a file shorter needs no room
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self.size += len(data)


def _join(span: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    return other if span is None else (min(span[0], other[0]), max(span[1], other[1]))


@dataclass
class McapFile:
    """A file's content, as far as it goes.

    Attributes:
        metadata: name -> keys and values.
        messages: in the order of the file.
        is_whole: whether it was closed in order; otherwise its writer died, and what it had not flushed is missing.
    """

    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    is_whole: bool = False


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def bytes(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise struct.error("cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        return self.bytes(self.take("I")[0]).decode()

    def map(self) -> dict[str, str]:
        inner = _Cursor(self.bytes(self.take("I")[0]))
        values = {}
        while inner.at < len(inner.data):
            key = inner.text()
            values[key] = inner.text()
        return values


def read_mcap(path: Path, topics: Collection[str] | None = None) -> McapFile:
    """Reads a file that was written here, also one whose writer died.

    Args:
        path: of the file.
        topics: whose messages are kept; all by default.

    Raises:
        ConfigError: it cannot be read, is no MCAP file, or is damaged before its end.
    """
    found = McapFile()
    names: dict[int, str] = {}
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ConfigError(f"{path} is no MCAP file: it does not begin like one")
            for opcode, content in _records(file):
                if opcode == CHUNK:
                    _read_chunk(content, names, topics, found)
                elif opcode == METADATA:
                    cursor = _Cursor(content)
                    name = cursor.text()
                    found.metadata[name] = cursor.map()
                elif opcode == FOOTER:
                    found.is_whole = True
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged, or was not written by wallx-edge: {error}") from error
    return found


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of every whole record; a tail that was cut off is left out."""
    while len(head := file.read(9)) == 9:
        opcode, size = struct.unpack("<BQ", head)
        if size > MAX_RECORD:
            raise ConfigError(f"{file.name} is damaged: a record of {size} bytes, at most {MAX_RECORD} are read")
        content = file.read(size)
        if len(content) < size:
            return
        yield opcode, content
        if opcode == FOOTER:
            return


def _read_chunk(content: bytes, names: dict[int, str], topics: Collection[str] | None, found: McapFile) -> None:
    cursor = _Cursor(content)
    _, _, _, checksum = cursor.take("QQQI")
    compression = cursor.text()
    if compression:
        raise ConfigError(f"a chunk is compressed with {compression!r}; wallx-edge reads its own recordings only")
    body = cursor.bytes(cursor.take("Q")[0])
    if checksum and zlib.crc32(body) != checksum:
        raise ValueError("the checksum of a chunk is wrong")
    inner = _Cursor(body)
    while inner.at < len(body):
        opcode, size = inner.take("BQ")
        record = _Cursor(inner.bytes(size))
        if opcode == CHANNEL:
            number, _ = record.take("HH")
            names[number] = record.text()
        elif opcode == MESSAGE:
            number, _, log_time, _ = record.take("HIQQ")
            if topics is None or names[number] in topics:
                found.messages.append(Message(names[number], log_time, record.data[record.at :]))
