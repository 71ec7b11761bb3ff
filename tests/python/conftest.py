"""Fixtures of every Python test."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import arm_model
from leaks import Snapshot
from live_arm import LiveArm, live_arm


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for what is not in the repository."""
    parser.addoption("--tokenizer", metavar="DIR", help="folder of the full-size Qwen2.5-VL tokenizer and cases.json")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic checkpoint for the so101; not to be written to."""
    return arm_model.write(tmp_path_factory.mktemp("synth") / "tiny")


@pytest.fixture
def arm(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[LiveArm]:
    """An emulated so101 in a process of its own."""
    with live_arm(tmp_path, tiny_checkpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a thread running or a file, bus or socket open."""
    before = Snapshot.take()
    yield
    left = before.left_since()
    if left:
        pytest.fail("the test left behind: " + ", ".join(left), pytrace=False)
