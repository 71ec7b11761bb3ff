"""Segments: a recording as a row of files of which the oldest go, so that the disk never fills."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from wallx_edge.errors import ConfigError
from wallx_edge.recording.mcap import McapWriter
from wallx_edge.recording.topics import schema

__all__ = ["MIN_BYTES", "Segments", "segments_of"]

PARTS = 8  # a segment is this part of what may be kept
CHUNK_BYTES = 1 << 20  # flushed when it has grown so large [bytes]
MIN_BYTES = PARTS * 4 * CHUNK_BYTES  # that can be kept [bytes]


class Segments:
    """Writes ``NAME-DATE-TIME.000.mcap``, ``.001.mcap``, ..., each a recording by itself. Not thread-safe."""

    def __init__(
        self,
        folder: Path,
        name: str,
        library: str,
        metadata: Mapping[str, Mapping[str, str]],
        topics: Sequence[str],
        max_bytes: int,
    ) -> None:
        """Begins the first file; makes the folder.

        Args:
            folder: where to.
            name: of the robot; the bound is for all recordings of this name in the folder, also of earlier runs.
            library: what writes it.
            metadata: name -> keys and values, for every file.
            topics: of the channels.
            max_bytes: that recordings of this name may take; older files are removed for it [bytes].

        Raises:
            ConfigError: the bound is too small, or the folder cannot be written to.
        """
        if max_bytes < MIN_BYTES:
            raise ConfigError(f"recording: max_bytes is {max_bytes}, must be at least {MIN_BYTES}")
        self._folder, self._name, self._library = folder, name, library
        self._metadata, self._topics = metadata, topics
        self._max_bytes, self._segment_bytes = max_bytes, max_bytes // PARTS
        self._started = time.strftime("%Y%m%d-%H%M%S")
        self._number = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(
                f"the recording cannot be written to {folder}: {error.strerror or error}; "
                "name another folder under [recording] of the robot's file"
            ) from error

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._path

    def add(self, topic: str, log_time: int, data: bytes) -> None:
        """Adds a message; now and then writes what has been gathered. Blocks for the disk.

        Args:
            topic: one of the channels.
            log_time: CLOCK_MONOTONIC [ns].
            data: JSON.

        Raises:
            OSError: the disk is full or failed; what was flushed before stays readable.
        """
        self._writer.add(topic, log_time, data)
        if self._writer.num_pending >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Puts what has been gathered into the file; begins another file when it is full. Blocks for the disk.

        Raises:
            OSError: as :meth:`add`.
        """
        self._writer.flush()
        if self._writer.size >= self._segment_bytes:
            self._close()
            self._number += 1
            self._open()

    def close(self) -> None:
        """Flushes and writes the index. Blocks for the disk. Idempotent.

        Raises:
            OSError: as :meth:`add`; the file is closed all the same.
        """
        self._close()

    def _open(self) -> None:
        self._make_room()
        path = self._folder / f"{self._name}-{self._started}.{self._number:03d}.mcap"
        while self._number == 0 and path.exists():  # two runs within one second
            self._started = _next(self._started)
            path = self._folder / f"{self._name}-{self._started}.000.mcap"
        self._path = path
        self._file = path.open("xb", buffering=0)
        try:
            self._writer = McapWriter(self._file, self._library, self._metadata)
        except OSError:
            self._file.close()
            raise
        for topic in self._topics:
            self._writer.add_channel(topic, *schema(topic))

    def _close(self) -> None:
        if self._file.closed:
            return
        try:
            self._writer.finish()
        finally:
            self._file.close()

    def _make_room(self) -> None:
        """Removes the oldest files until one more segment fits, with as much again for its last chunk and its index."""
        files = segments_of(self._folder, self._name)
        total = sum(size for _, size in files)
        room = self._max_bytes - 2 * self._segment_bytes
        while files and total > room:
            oldest, size = files.pop(0)
            oldest.unlink(missing_ok=True)
            total -= size


def _next(started: str) -> str:
    then = time.mktime(time.strptime(started, "%Y%m%d-%H%M%S"))
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(then + 1))


def segments_of(folder: Path, name: str) -> list[tuple[Path, int]]:
    """A robot's recordings in a folder, oldest first, with their sizes [bytes]."""
    pattern = re.compile(re.escape(name) + r"-\d{8}-\d{6}\.\d{3,}\.mcap")
    found = []
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            try:
                found.append((path, path.stat().st_size))
            except FileNotFoundError:
                continue  # another program made room
    return sorted(found, key=lambda entry: _age(entry[0]))


def _age(path: Path) -> tuple[str, int]:
    run, number, _ = path.name.rsplit(".", 2)
    return run, int(number)
