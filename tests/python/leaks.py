"""What a test left behind: threads and open file descriptors."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class Snapshot:
    """Threads and descriptors of this process at one moment."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[str, str]]

    @classmethod
    def take(cls) -> Snapshot:
        """Looks now."""
        found = set()
        for descriptor in list(_DESCRIPTORS.iterdir()):
            try:
                found.add((descriptor.name, str(descriptor.readlink())))
            except FileNotFoundError:
                continue  # the descriptor that listed this folder
        return cls(frozenset(threading.enumerate()), frozenset(found))

    def left_since(self) -> list[str]:
        """What is here now and was not then, in words."""
        new_threads, new_descriptors = self._new()
        if new_descriptors:
            gc.collect()  # an object in a cycle that closes itself is not a leak
            new_threads, new_descriptors = self._new()
        return sorted(f"thread {thread.name!r}" for thread in new_threads) + sorted(
            f"descriptor {number} -> {target}" for number, target in new_descriptors
        )

    def _new(self) -> tuple[frozenset[threading.Thread], frozenset[tuple[str, str]]]:
        now = Snapshot.take()
        return now.threads - self.threads, now.descriptors - self.descriptors
