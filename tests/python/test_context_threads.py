"""A context belongs to one thread at a time."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading

import numpy as np
import pytest

from golden import CASE1
from wallx_edge import _core
from wallx_edge.errors import WallxError


def test_a_second_thread_is_refused_and_changes_nothing() -> None:
    engine = _core.Engine.load(str(CASE1))
    context = _core.Context(engine, 64)
    context.prefill(np.arange(20))
    noise = np.ones((8, engine.config.action_dim), np.float32)
    alone = context.denoise(noise, np.ones_like(noise), 1000)
    results: list[np.ndarray] = []
    worker = threading.Thread(target=lambda: results.append(context.denoise(noise, np.ones_like(noise), 1000)))
    worker.start()
    with pytest.raises(WallxError, match="another thread"):
        while worker.is_alive():
            context.logits()
    worker.join()
    assert np.array_equal(results[0], alone)
