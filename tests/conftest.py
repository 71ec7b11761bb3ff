"""Options of the whole suite."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The robot of the contract tests."""
    parser.addoption("--robot", metavar="FILE", help="ROBOT.toml: run the contract (-m hil) on this robot; it moves")
