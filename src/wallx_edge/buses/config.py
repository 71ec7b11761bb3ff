"""BusConfig: the [bus] table of a ROBOT.toml."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wallx_edge import _core
from wallx_edge.tables import Table

__all__ = ["BusConfig", "read_bus"]

MAX_ADAPTER_RATE_HZ = 50.0  # of the loop, without asking for the mailbox by name [1/s]

# kind -> its keys besides kind and port
KEYS: dict[str, tuple[str, ...]] = {
    "serial": ("baud_rate",),
    "socketcan": ("bit_rate", "data_bit_rate"),
    "slcan": ("baud_rate", "bit_rate", "data_bit_rate"),
    "udp_multicast": ("interface", "data_bit_rate"),
    "replay": ("interface",),
    "pyserial": ("baud_rate",),
    "python-can": ("interface", "bit_rate", "data_bit_rate"),
    "mailbox": ("adapter", "interface", "baud_rate", "bit_rate", "data_bit_rate"),
}
ADAPTERS = ("pyserial", "python-can")


@dataclass(frozen=True)
class BusConfig:
    """Which line the motors are on.

    Attributes:
        kind: serial; socketcan, slcan, udp_multicast, replay; or mailbox.
        port: device, network interface, group address, log file, or an adapter's URL or channel.
        baud_rate: of a serial device [bit/s].
        bit_rate: of CAN arbitration [bit/s].
        data_bit_rate: of CAN FD data; 0: classic CAN [bit/s].
        interface: udp_multicast: network interface; replay: channel in the log; python-can: its interface's name.
        adapter: mailbox only: pyserial or python-can.
        record: log file of everything that goes over the line; empty: none.
    """

    kind: str = "serial"
    port: str = ""
    baud_rate: int = 1_000_000
    bit_rate: int = 1_000_000
    data_bit_rate: int = 0
    interface: str = ""
    adapter: str = ""
    record: str = ""

    def core(
        self, byte_mailbox: _core.ByteMailbox | None = None, can_mailbox: _core.CanMailbox | None = None
    ) -> _core.BusConfig:
        """What :func:`wallx_edge._core.make_robot` takes; with a mailbox, see :class:`wallx_edge.buses.Adapter`."""
        return _core.BusConfig(
            kind=self.kind,
            port=self.port,
            baud_rate=self.baud_rate,
            bit_rate=self.bit_rate,
            data_bit_rate=self.data_bit_rate,
            interface=self.interface,
            record=self.record,
            byte_mailbox=byte_mailbox,
            can_mailbox=can_mailbox,
        )


def read_bus(table: Table, base: Path, rate_hz: float) -> BusConfig:
    """Checks a [bus] table. Opens nothing.

    ``kind = "pyserial"`` and ``"python-can"`` are the mailbox with that adapter, for loops of up to 50 Hz: Python moves
    its frames, and under load it moves them late. A faster loop must ask for it by name.

    Args:
        table: the table.
        base: folder that the relative path of a device or a log file starts from.
        rate_hz: of the control loop [1/s].

    Raises:
        ConfigError: names file, table, key, value and bound.
    """
    kind = table.choice("kind", tuple(KEYS), "serial")
    adapter = kind if kind in ADAPTERS else ""
    if kind == "mailbox":
        adapter = table.choice("adapter", ADAPTERS, "")
    keys = KEYS[adapter or kind]
    table.check_keys(
        ("port",), ("kind", "record", "adapter", *keys) if kind == "mailbox" else ("kind", "record", *keys)
    )
    if kind in ADAPTERS and rate_hz > MAX_ADAPTER_RATE_HZ:
        raise table.fail(
            "kind",
            f"is {kind!r}, for loops of up to {MAX_ADAPTER_RATE_HZ:g} Hz, and control.rate_hz is {rate_hz:g}: Python "
            f'moves its frames and may be late; where you accept that, set kind = "mailbox" and adapter = "{kind}"',
        )
    port = table.text("port")
    data_bit_rate = table.integer("data_bit_rate", 0, 8_000_000, 0)
    if 0 < data_bit_rate < 500_000:
        raise table.fail("data_bit_rate", f"is {data_bit_rate}, must be 500000..8000000, or 0 for classic CAN")
    needs_interface = adapter == "python-can"
    return BusConfig(
        kind="mailbox" if adapter else kind,
        port=str((base / port).absolute()) if kind in ("serial", "slcan", "replay") else port,
        baud_rate=table.integer("baud_rate", 9600, 4_000_000, 1_000_000),
        bit_rate=table.integer("bit_rate", 10_000, 1_000_000, 1_000_000),
        data_bit_rate=data_bit_rate,
        interface=table.text("interface") if needs_interface or "interface" in table.values else "",
        adapter=adapter,
        record=str((base / table.text("record")).absolute()) if "record" in table.values else "",
    )
