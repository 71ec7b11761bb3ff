"""A line with an arm servo and a wheel that answer as STS servos do, from registers in this process."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import pty
import select
import threading
import tty
from types import TracebackType

ARM, WHEEL = 1, 2


def _servo(servo: int, mode: int, low: int, high: int) -> bytearray:
    registers = bytearray(128)
    registers[3:5] = (777).to_bytes(2, "little")
    registers[5], registers[8], registers[18], registers[33] = servo, 1, 12, mode
    registers[9:11], registers[11:13] = low.to_bytes(2, "little"), high.to_bytes(2, "little")
    registers[16:18] = registers[48:50] = (1000).to_bytes(2, "little")
    registers[56:58] = (2092).to_bytes(2, "little")
    return registers


class WheelLine:
    """Written from the protocol's description, without the driver's codec."""

    def __init__(self) -> None:
        """Opens a pseudo-terminal."""
        self.registers = {ARM: _servo(ARM, 0, 743, 3441), WHEEL: _servo(WHEEL, 1, 0, 0)}
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        self.port = os.ttyname(self._slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def word(self, servo: int, address: int) -> int:
        """Two bytes of a servo's registers."""
        return int.from_bytes(self.registers[servo][address : address + 2], "little")

    def set_word(self, servo: int, address: int, value: int) -> None:
        """Writes two bytes."""
        self.registers[servo][address : address + 2] = value.to_bytes(2, "little")

    def __enter__(self) -> WheelLine:
        """Starts to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hangs up."""
        self.hang_up()

    def hang_up(self) -> None:
        """Pulls the line. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)

    def _serve(self) -> None:
        pending = b""
        while not self._stop.is_set():
            if not select.select([self._master], [], [], 0.02)[0]:
                continue
            pending += os.read(self._master, 4096)
            while (start := pending.find(b"\xff\xff")) >= 0 and len(pending) >= start + 4:
                size = 4 + pending[start + 3]
                frame = pending[start : start + size]
                if len(frame) < size:
                    break
                if (~sum(frame[2:-1]) & 0xFF) != frame[-1]:
                    pending = pending[start + 1 :]
                    continue
                pending = pending[start + size :]
                self._handle(frame)

    def _handle(self, frame: bytes) -> None:
        servo, instruction, parameters = frame[2], frame[4], frame[5:-1]
        if instruction == 1 and servo in self.registers:
            self._answer(servo, b"")
        elif instruction == 2 and servo in self.registers:
            self._read(servo, parameters[0], parameters[1])
        elif instruction == 0x82:
            for one in parameters[2:]:
                self._read(one, parameters[0], parameters[1])
        elif instruction == 0x83:
            address, size = parameters[0], parameters[1]
            for at in range(2, len(parameters), size + 1):
                if (one := parameters[at]) in self.registers:
                    self.registers[one][address : address + size] = parameters[at + 1 : at + 1 + size]

    def _read(self, servo: int, address: int, size: int) -> None:
        if servo in self.registers:
            self._answer(servo, bytes(self.registers[servo][address : address + size]))

    def _answer(self, servo: int, parameters: bytes) -> None:
        body = bytes([servo, len(parameters) + 2, 0]) + parameters
        os.write(self._master, b"\xff\xff" + body + bytes([~sum(body) & 0xFF]))
