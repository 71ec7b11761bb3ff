"""The watch over leaks sees what it promises to see."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import threading
from pathlib import Path

from leaks import Snapshot


def test_names_a_thread_that_is_still_running() -> None:
    before = Snapshot.take()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    thread.start()
    try:
        assert before.left_since() == ["thread 'forgotten'"]
    finally:
        stop.set()
        thread.join()
    assert before.left_since() == []


def test_names_a_descriptor_that_is_still_open(tmp_path: Path) -> None:
    before = Snapshot.take()
    descriptor = os.open(tmp_path / "forgotten", os.O_CREAT | os.O_WRONLY)
    try:
        assert before.left_since() == [f"descriptor {descriptor} -> {tmp_path / 'forgotten'}"]
    finally:
        os.close(descriptor)
    assert before.left_since() == []


def test_sees_a_descriptor_replaced_under_the_same_number(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "first", os.O_CREAT | os.O_WRONLY)
    before = Snapshot.take()
    os.close(descriptor)
    again = os.open(tmp_path / "second", os.O_CREAT | os.O_WRONLY)
    try:
        assert before.left_since() == [f"descriptor {again} -> {tmp_path / 'second'}"]
    finally:
        os.close(again)
