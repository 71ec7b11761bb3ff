"""Bus benchmark: round trips over every transport that this computer has, beside python-can's on the same lines."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import select
import statistics
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.buses import Adapter, BusConfig
from wallx_edge.errors import BusError, ConfigError

__all__ = ["bench_bus"]

ID = 0x123
DATA = bytes(range(8))
TIMEOUT = 5.0  # for one round trip: only a lost frame reaches it [s]
PRIORITY = 50  # SCHED_FIFO; below a robot's loop
WARM_UP = 20  # round trips
GROUP = "239.74.163.2"
VCAN = "vcan0"

Trip = Callable[[], None]


def bench_bus(blocks: int = 5, round_trips: int = 300) -> list[dict[str, Any]]:
    """Sends eight bytes, or one frame of eight bytes, to another process that sends them back.

    The transports take turns, block by block, so that what else the computer does meets all of them alike. Both ends
    run as SCHED_FIFO where that is permitted, as a robot's loop does, and include what Python costs: some microseconds.

    Args:
        blocks: of each transport.
        round_trips: of each block.

    Returns:
        per transport: its name, medians over the blocks of a round trip's p50 and p99 [us], whether both ends were
        SCHED_FIFO; or why it was left out.
    """
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        is_fifo = stack.enter_context(_fifo())
        trips: dict[str, Trip] = {}
        for name, start in _TRANSPORTS.items():
            with ExitStack() as attempt:
                try:
                    trip = start(attempt)
                    for _ in range(WARM_UP):
                        trip()
                except (BusError, ConfigError, ImportError, OSError) as error:
                    rows.append({"transport": name, "left_out": str(error)})
                    continue
                stack.enter_context(attempt.pop_all())
                trips[name] = trip
        times: dict[str, list[list[float]]] = {name: [] for name in trips}
        for _ in range(blocks):
            for name, trip in trips.items():
                times[name].append([_time(trip) for _ in range(round_trips)])
    measured = [
        {
            "transport": name,
            "p50_us": statistics.median(float(np.quantile(block, 0.5)) for block in of_blocks) * 1e6,
            "p99_us": statistics.median(float(np.quantile(block, 0.99)) for block in of_blocks) * 1e6,
            "is_fifo": is_fifo,
        }
        for name, of_blocks in times.items()
    ]
    return measured + rows


@contextmanager
def _fifo() -> Iterator[bool]:
    """SCHED_FIFO for this thread and what it starts meanwhile; whether that is permitted."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)


def _time(trip: Trip) -> float:
    begin = time.perf_counter()
    trip()
    return time.perf_counter() - begin


def _serial(stack: ExitStack) -> Trip:
    bus = _core.make_bus(_core.BusConfig(port=_echoing_port(stack)))
    return _byte_trip(stack, bus)


def _slcan(stack: ExitStack) -> Trip:
    return _can_trip(stack, _core.make_can_bus(_core.BusConfig(kind="slcan", port=_echoing_port(stack))))


def _udp_multicast(stack: ExitStack) -> Trip:
    return _can_trip(stack, _core.make_can_bus(_core.BusConfig(**_echoing_group(stack, "lo", 0))))


def _socketcan(stack: ExitStack) -> Trip:
    if not Path(f"/sys/class/net/{VCAN}").exists():
        raise OSError(f"no interface {VCAN} here")
    settings: dict[str, Any] = {"kind": "socketcan", "port": VCAN}
    _start_echo(stack, _echo_can, settings)
    return _can_trip(stack, _core.make_can_bus(_core.BusConfig(**settings)))


def _mailbox_pyserial(stack: ExitStack) -> Trip:
    adapter = Adapter(BusConfig("mailbox", _echoing_port(stack), adapter="pyserial"))
    adapter.open()
    stack.callback(adapter.close)
    return _byte_trip(stack, _core.make_bus(adapter.config))


def _python_can_slcan(stack: ExitStack) -> Trip:
    import can

    bus = can.Bus(
        interface="slcan",
        channel=_echoing_port(stack),
        bitrate=1_000_000,
        tty_baudrate=1_000_000,
        sleep_after_open=0,
        ignore_config=True,
    )
    stack.callback(bus.shutdown)
    return _python_can_trip(bus, hears_itself=False)


def _python_can_udp_multicast(stack: ExitStack) -> Trip:
    import can

    settings = _echoing_group(stack, "", 1)
    group, _, port = settings["port"].partition(":")
    try:
        bus = can.Bus(interface="udp_multicast", channel=group, port=int(port), ignore_config=True)
    except can.CanError as error:
        raise OSError(f"no route for IPv4 multicast here: {error}") from error
    stack.callback(bus.shutdown)
    return _python_can_trip(bus, hears_itself=True)


_TRANSPORTS: dict[str, Callable[[ExitStack], Trip]] = {
    "serial, pty": _serial,
    "slcan, pty": _slcan,
    "udp_multicast, lo": _udp_multicast,
    f"socketcan, {VCAN}": _socketcan,
    "mailbox of pyserial, pty": _mailbox_pyserial,
    "python-can slcan, pty": _python_can_slcan,
    "python-can udp_multicast": _python_can_udp_multicast,
}


def _byte_trip(stack: ExitStack, bus: _core.Bus) -> Trip:
    bus.open()
    stack.callback(bus.close)

    def trip() -> None:
        bus.transmit(DATA)
        left = len(DATA)
        while left > 0:
            received = bus.receive(TIMEOUT)
            if not received:
                raise BusError(f"{bus.name}: bytes were lost")
            left -= len(received)

    return trip


def _can_trip(stack: ExitStack, bus: _core.CanBus) -> Trip:
    bus.open()
    stack.callback(bus.close)
    frame = _core.CanFrame(ID, DATA)

    def trip() -> None:
        bus.transmit([frame])
        while not any(frame.id == ID for frame in bus.receive(TIMEOUT) or _lost(bus.name)):
            pass

    return trip


def _lost(name: str) -> list[_core.CanFrame]:
    raise BusError(f"{name}: a frame was lost")


def _python_can_trip(bus: Any, hears_itself: bool) -> Trip:
    import can

    message = can.Message(arbitration_id=ID, data=DATA, is_extended_id=False)

    def trip() -> None:
        bus.send(message)
        for _ in range(2 if hears_itself else 1):
            if bus.recv(TIMEOUT) is None:
                raise BusError(f"python-can {bus.channel_info}: a frame was lost")

    return trip


def _echoing_port(stack: ExitStack) -> str:
    """A serial port whose other end sends everything back."""
    port: str = _start_echo(stack, _echo_bytes, {})
    return port


def _echoing_group(stack: ExitStack, interface: str, number: int) -> dict[str, Any]:
    """A group of this process in which somebody sends every frame back."""
    port = 20_000 + (2 * os.getpid() + number) % 40_000
    settings = {"kind": "udp_multicast", "port": f"{GROUP}:{port}", "interface": interface}
    _start_echo(stack, _echo_can, settings)
    return settings


def _start_echo(stack: ExitStack, echo: Callable[[Connection, dict[str, Any]], None], settings: dict[str, Any]) -> Any:
    """Starts a process that says where it listens, or what is wrong, and ends when ``stack`` does."""
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    process = spawn.Process(target=echo, args=(far, settings), daemon=True)
    process.start()
    far.close()
    stack.callback(process.join)
    stack.callback(near.close)  # first: the process waits for it
    try:
        answer = near.recv()
    except EOFError as error:
        raise OSError("the far end did not start") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _echo_bytes(far: Connection, settings: dict[str, Any]) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    far.send(os.ttyname(slave))
    while True:
        ready, _, _ = select.select([master, far.fileno()], [], [])
        if far.fileno() in ready:
            return
        os.write(master, os.read(master, 4096))


def _echo_can(far: Connection, settings: dict[str, Any]) -> None:
    bus = _core.make_can_bus(_core.BusConfig(**settings))
    try:
        bus.open()
    except BusError as error:
        far.send(error)
        return
    far.send("ready")
    while not far.poll():
        frames = bus.receive(0.1)
        if frames:
            bus.transmit(frames)
    bus.close()
