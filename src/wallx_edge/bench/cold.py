"""Cold: peak memory, and the first chunk after the file's pages have left memory, in a process of its own."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import mmap
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wallx_edge.bench.engine import Asked, first_chunks
from wallx_edge.bench.load import peak_mb
from wallx_edge.errors import WallxError

__all__ = ["bench_cold"]

TIMEOUT = 1800.0  # [s]
WARM = 3  # chunks after the first
MOST_RESIDENT = 0.01  # of the files, when they count as cold
BLOCK = 8 << 20


def bench_cold(checkpoint: Path, asked: Asked) -> dict[str, Any]:
    """Loads a checkpoint whose pages are not in memory, and computes chunks. Blocks.

    Nobody else may have the files mapped: pages in use do not leave.

    Args:
        checkpoint: folder.
        asked: how the engine is loaded, and for what.

    Returns:
        ``file_gb``; ``read_s``: reading the weights from the disk once; ``load_s``, ``first_chunk_s``: from a cold
        cache, one after the other; ``warm_chunk_s``; ``cold_over_read``: what both took longer than a warm chunk, over
        ``read_s``; ``peak_mb``: resident memory of the process at its most, file pages included.

    Raises:
        WallxError: the pages stay, or the process fails.
    """
    process = subprocess.run(
        [sys.executable, "-m", "wallx_edge.bench.cold", json.dumps({"checkpoint": str(checkpoint), **asdict(asked)})],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        raise WallxError(f"bench engine, from a cold cache: {lines[-1] if lines else f'exit {process.returncode}'}")
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def drop_pages(paths: list[Path]) -> None:
    """Lets the files' pages leave memory.

    Raises:
        WallxError: they stay.
    """
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only clean pages leave
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        share = resident_share(path)
        if share > MOST_RESIDENT:
            raise WallxError(f"{path}: {share:.0%} of its pages stay in memory; another process uses the file")


def resident_share(path: Path) -> float:
    """Share of a file's pages that are in memory."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        # a private mapping that nobody writes to: its pages are the file's
        start = ctypes.c_char.from_buffer(view)
        address = ctypes.addressof(start)
        failed = libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), f"{path}: mincore")
    return sum(page & 1 for page in found) / pages


def read_seconds(paths: list[Path]) -> float:
    """Time to read the files once, in order [s]"""
    buffer = bytearray(BLOCK)
    begin = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begin


def main() -> None:
    """One measurement, in its own process: ``python -m wallx_edge.bench.cold TASK``; prints it as JSON."""
    task = json.loads(sys.argv[1])
    checkpoint = Path(task.pop("checkpoint"))
    asked = Asked(**task)
    paths = sorted(checkpoint.glob("model*.safetensors"))
    drop_pages(paths)
    read_s = read_seconds(paths)
    drop_pages(paths)
    load_s, first_s, *warm = first_chunks(checkpoint, asked, 1 + WARM)
    warm_s = statistics.median(warm)
    found = {
        "file_gb": sum(path.stat().st_size for path in paths) / 1e9,
        "read_s": read_s,
        "load_s": load_s,
        "first_chunk_s": first_s,
        "warm_chunk_s": warm_s,
        "cold_over_read": (load_s + first_s - warm_s) / read_s,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except WallxError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
