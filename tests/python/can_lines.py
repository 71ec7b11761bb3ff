"""Lines between our CAN buses and python-can's: frames of every kind, a wire of two pseudo-terminals, UDP groups."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import select
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import can

from wallx_edge import _core

PATIENCE = 20.0  # far enough away that only what never comes reaches it [s]
SIZES = (*range(9), 12, 16, 20, 24, 32, 48, 64)


def every_kind() -> list[can.Message]:
    """Every length, both kinds of id at both ends of their range, classic and FD with and without the fast rate."""
    messages = [
        can.Message(arbitration_id=id, is_extended_id=False, data=os.urandom(size))
        for id in (0, 0x123, 0x7FF)
        for size in range(9)
    ]
    messages += [
        can.Message(arbitration_id=id, is_extended_id=True, data=b"\r\a\n\x00t\xff") for id in (0, 0x7FF, 0x1FFFFFFF)
    ]
    messages += [
        can.Message(
            arbitration_id=0x700 + size,
            is_extended_id=switched,
            is_fd=True,
            bitrate_switch=switched,
            data=os.urandom(size),
        )
        for size in SIZES
        for switched in (False, True)
    ]
    return messages


def to_frame(message: can.Message) -> _core.CanFrame:
    """Ours, of python-can's."""
    return _core.CanFrame(
        message.arbitration_id,
        bytes(message.data),
        is_extended=message.is_extended_id,
        is_fd=message.is_fd,
        is_bit_rate_switched=message.bitrate_switch,
    )


def fields(frame: _core.CanFrame | can.Message) -> tuple[int, bytes, bool, bool, bool]:
    """What must be equal on both sides."""
    if isinstance(frame, can.Message):
        return (
            frame.arbitration_id,
            bytes(frame.data),
            frame.is_extended_id,
            frame.is_fd,
            frame.bitrate_switch,
        )
    return frame.id, frame.data, frame.is_extended, frame.is_fd, frame.is_bit_rate_switched


def exchange(ours: _core.CanBus, theirs: can.BusABC, messages: list[can.Message]) -> None:
    """Sends every message both ways, one at a time, and compares what arrives."""
    for message in messages:
        theirs.send(message)
        received = receive(ours, 1)
        assert [fields(frame) for frame in received] == [fields(message)]
        assert received[0].received_at > 0
        ours.transmit([to_frame(message)])
        back = theirs.recv(PATIENCE)
        assert back is not None
        assert not back.is_remote_frame and not back.is_error_frame
        assert fields(back) == fields(message)


def receive(bus: _core.CanBus, count: int) -> list[_core.CanFrame]:
    """Waits for so many frames."""
    frames: list[_core.CanFrame] = []
    while len(frames) < count:
        some = bus.receive(PATIENCE)
        assert some, f"only {len(frames)} of {count} frames arrived"
        frames += some
    return frames


@contextmanager
def pty_wire() -> Iterator[tuple[str, str]]:
    """Two serial ports; what is written to one is read from the other."""
    ends = [os.openpty() for _ in range(2)]
    for _, slave in ends:
        tty.setraw(slave)
    masters = [master for master, _ in ends]
    stop, stopper = os.pipe()

    def relay() -> None:
        while True:
            for ready in select.select([*masters, stop], [], [])[0]:
                if ready == stop:
                    return
                data = os.read(ready, 4096)
                while data:
                    data = data[os.write(masters[1 - masters.index(ready)], data) :]

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        os.write(stopper, b"x")
        thread.join()
        for descriptor in (*masters, *(slave for _, slave in ends), stop, stopper):
            os.close(descriptor)
