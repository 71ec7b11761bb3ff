"""Buses: which line the motors are on, and the adapters that only Python libraries can open."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.buses.adapter import Adapter
from wallx_edge.buses.config import BusConfig, read_bus

__all__ = ["Adapter", "BusConfig", "read_bus"]
