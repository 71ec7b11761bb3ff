"""Unit: the systemd unit in the package."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["installed_unit", "unit_path"]


def unit_path() -> Path:
    """The template; BIN in it stands for the folder of the installed programs."""
    return Path(__file__).with_name("wallx-edge@.service")


def installed_unit() -> str:
    """The unit for this installation."""
    return unit_path().read_text(encoding="utf-8").replace("BIN/", f"{sysconfig.get_path('scripts')}/")
