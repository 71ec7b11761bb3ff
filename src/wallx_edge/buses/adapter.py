"""Adapter: moves a loop's bytes or frames between its mailbox and any adapter that pyserial or python-can can open."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from wallx_edge import _core
from wallx_edge.buses.config import BusConfig
from wallx_edge.errors import BusError, ConfigError

__all__ = ["Adapter"]

POLL = 0.05  # between looks at whether to stop [s]


class Adapter:
    """An open adapter with two threads: one receives for the loop, one sends for it.

    A failure of either ends both and closes the loop's bus; :attr:`error` keeps it. Opening again is up to the caller.

    Attributes:
        config: for :func:`wallx_edge._core.make_robot`; its mailbox is this adapter's.
        error: what went wrong; None while all is well.
    """

    def __init__(self, config: BusConfig) -> None:
        """Opens the adapter. Blocks as long as its library does.

        Args:
            config: with ``adapter`` "pyserial" or "python-can".

        Raises:
            ConfigError: its library is not installed, or refuses a setting.
            BusError: the adapter cannot be opened.
        """
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._mailbox: _core.ByteMailbox | _core.CanMailbox
        if config.adapter == "pyserial":
            byte_mailbox = _core.ByteMailbox()
            port = _open_serial(config)
            self._mailbox, self._close = byte_mailbox, port.close
            moves = (lambda: _receive_bytes(port, byte_mailbox), lambda: _send_bytes(port, byte_mailbox))
            self.config = config.core(byte_mailbox=byte_mailbox)
        elif config.adapter == "python-can":
            can_mailbox = _core.CanMailbox()
            bus = _open_can(config)
            self._mailbox, self._close = can_mailbox, bus.shutdown
            moves = (lambda: _receive_frames(bus, can_mailbox), lambda: _send_frames(bus, can_mailbox))
            self.config = config.core(can_mailbox=can_mailbox)
        else:
            raise ConfigError(f"adapter is {config.adapter!r}, must be pyserial or python-can; correct [bus]")
        self._mailbox.connect()
        self._threads = [
            threading.Thread(target=self._move, args=(move,), name=f"{config.adapter} {way}", daemon=True)
            for move, way in zip(moves, ("receiver", "sender"), strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends both threads and closes the adapter. Blocks up to about 0.1 s. Idempotent."""
        self._stop.set()
        self._mailbox.disconnect()
        for thread in self._threads:
            thread.join()
        self._close()

    @property
    def num_dropped(self) -> int:
        """What came too late to be sent, or found the loop's ring full: bytes or frames."""
        return self._mailbox.num_dropped

    def _move(self, move: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                move()
        except Exception as error:  # whatever an adapter's library raises
            # what the end of the other direction causes is no news
            if not self._stop.is_set():
                self.error = error
                self._stop.set()
        finally:
            self._mailbox.disconnect()


def _open_serial(config: BusConfig) -> Any:
    try:
        import serial
    except ImportError as error:
        raise ConfigError("adapter pyserial needs its library: pip install 'wallx-edge[adapters]'") from error
    try:
        port = serial.serial_for_url(config.port, baudrate=config.baud_rate, timeout=POLL, write_timeout=1.0)
    except serial.SerialException as error:
        raise BusError(f"pyserial cannot open {config.port}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"pyserial refuses {config.port}: {error}; correct [bus] in the robot's file") from error
    port.reset_input_buffer()
    return port


def _receive_bytes(port: Any, mailbox: _core.ByteMailbox) -> None:
    data = port.read(max(1, port.in_waiting))
    if data:
        mailbox.deliver(data)


def _send_bytes(port: Any, mailbox: _core.ByteMailbox) -> None:
    data = mailbox.collect(POLL)
    if data:
        port.write(data)


def _open_can(config: BusConfig) -> Any:
    try:
        import can
    except ImportError as error:
        raise ConfigError("adapter python-can needs its library: pip install 'wallx-edge[adapters]'") from error
    channel: str | int = int(config.port) if config.port.isdigit() else config.port
    rates: dict[str, Any] = {"bitrate": config.bit_rate}
    if config.data_bit_rate:
        rates |= {"fd": True, "data_bitrate": config.data_bit_rate}
    try:
        return can.Bus(channel=channel, interface=config.interface, ignore_config=True, **rates)
    except NotImplementedError as error:
        raise ConfigError(f"python-can: {error}; correct interface of [bus] in the robot's file") from error
    except (can.CanError, OSError) as error:
        raise BusError(f"python-can cannot open {config.interface} {config.port}: {error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"python-can refuses {config.interface} {config.port}: {error}; correct [bus] in the robot's file"
        ) from error


def _receive_frames(bus: Any, mailbox: _core.CanMailbox) -> None:
    message = bus.recv(POLL)
    # an echo of what we sent, and what carries no data, is not for the loop
    if message is None or not message.is_rx or message.is_remote_frame or message.is_error_frame:
        return
    frame = _core.CanFrame(
        message.arbitration_id,
        bytes(message.data),
        is_extended=message.is_extended_id,
        is_fd=message.is_fd,
        is_bit_rate_switched=message.bitrate_switch,
    )
    mailbox.deliver([frame])


def _send_frames(bus: Any, mailbox: _core.CanMailbox) -> None:
    import can

    for frame in mailbox.collect(POLL):
        message = can.Message(
            arbitration_id=frame.id,
            is_extended_id=frame.is_extended,
            data=frame.data,
            is_fd=frame.is_fd,
            bitrate_switch=frame.is_bit_rate_switched,
        )
        bus.send(message, timeout=1.0)
