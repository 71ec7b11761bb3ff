"""Bench of the sync read: share of the wire's rate, and processor time, ours against a LeRobot-style Python reader."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from wallx_edge import _core
from wallx_edge.sim import SimProcess

__all__ = ["bench_codecs", "bench_sync_read"]

ADDRESS, SIZE = 56, 8  # position, speed, load, voltage, temperature
IDS = (1, 2, 3, 4, 5, 6)
BAUD_RATE = 1_000_000
# header, id, length, instruction or error, parameters, checksum; ten bits a byte
REQUEST_BYTES = 6 + 2 + len(IDS)
ANSWER_BYTES = 6 + SIZE
WIRE_SECONDS = (REQUEST_BYTES + len(IDS) * ANSWER_BYTES) * 10 / BAUD_RATE

Times = dict[str, float]


def bench_codecs(rounds: int = 20_000, blocks: int = 5) -> dict[str, float]:
    """Time to encode one motor's goal and decode its state, by family [us]: medians of blocks."""
    found = [_core.codec_times(rounds) for _ in range(blocks)]
    return {family: median(one[family] for one in found) * 1e6 for family in found[0]}


def bench_sync_read(reads: int = 500, blocks: int = 5, on_block: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Reads six emulated STS servos, paced as a wire of 1 Mbit/s, back to back; blocks of each reader take turns.

    The Python reader is what LeRobot does: Feetech's SDK on pyserial. Without the package feetech-servo-sdk only ours
    is measured.

    Args:
        reads: in a block.
        blocks: of each reader.
        on_block: called with the reader's name before each block.

    Returns:
        the wire's time for a read [us], and by reader the medians of the time per read [us], the processor time per
        read [us], the share of the wire's rate; reads that failed.
    """
    readers: dict[str, Callable[[str, int], Times]] = {"wallx": _ours}
    if find_spec("scservo_sdk") is not None:
        readers["lerobot_style"] = _lerobot_style
    found: dict[str, list[Times]] = {name: [] for name in readers}
    with tempfile.TemporaryDirectory() as folder, SimProcess("so101", link=Path(folder) / "port") as sim:
        for read in readers.values():  # whatever is slow only once
            read(sim.port, 20)
        for _ in range(blocks):
            for name, read in readers.items():
                if on_block is not None:
                    on_block(name)
                found[name].append(read(sim.port, reads))
        is_realtime = sim.is_realtime
    result: dict[str, Any] = {
        "servos": len(IDS),
        "bytes": SIZE,
        "wire_us": WIRE_SECONDS * 1e6,
        "reads": reads,
        "blocks": blocks,
        "emulator_is_fifo": is_realtime,
        "readers": {name: _summary(times) for name, times in found.items()},
    }
    if "lerobot_style" in found:
        ours, theirs = (result["readers"][name]["cpu_us"] for name in ("wallx", "lerobot_style"))
        result["cpu_ratio"] = ours / theirs
    return result


def _summary(blocks: Sequence[Times]) -> dict[str, float]:
    per_read = median(block["wall_s"] / block["num_reads"] for block in blocks)
    return {
        "read_us": per_read * 1e6,
        "cpu_us": median(block["cpu_s"] / block["num_reads"] for block in blocks) * 1e6,
        "wire_share": WIRE_SECONDS / per_read,
        "failed": sum(block["num_failed"] for block in blocks),
    }


def _ours(port: str, reads: int) -> Times:
    return _core.sync_read_times(_core.BusConfig(port=port, baud_rate=BAUD_RATE), list(IDS), reads)


def _lerobot_style(port: str, reads: int) -> Times:
    """One group read of the SDK per cycle, then one value per motor, as LeRobot's motor bus does."""
    import scservo_sdk as scs

    handler = scs.PortHandler(port)
    handler.openPort()
    try:
        handler.setBaudRate(BAUD_RATE)
        packets = scs.PacketHandler(0)
        group = scs.GroupSyncRead(handler, packets, ADDRESS, SIZE)
        for id in IDS:
            group.addParam(id)
        failed = 0
        begin, cpu_begin = time.perf_counter(), time.thread_time()
        for _ in range(reads):
            failed += group.txRxPacket() != scs.COMM_SUCCESS
            state = {id: [group.getData(id, ADDRESS + at, 2) for at in (0, 2, 4)] for id in IDS}
        wall, cpu = time.perf_counter() - begin, time.thread_time() - cpu_begin
        failed += reads > 0 and len(state) != len(IDS)
    finally:
        handler.closePort()
    return {"num_reads": reads, "num_failed": failed, "wall_s": wall, "cpu_s": cpu}
