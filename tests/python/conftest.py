"""Fixtures of every Python test."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leaks import Snapshot


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for what is not in the repository."""
    parser.addoption("--tokenizer", metavar="DIR", help="folder of the full-size Qwen2.5-VL tokenizer and cases.json")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a thread running or a file, bus or socket open."""
    before = Snapshot.take()
    yield
    left = before.left_since()
    if left:
        pytest.fail("the test left behind: " + ", ".join(left), pytrace=False)
