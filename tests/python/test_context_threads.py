"""A context belongs to one thread at a time."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading

import numpy as np

from golden import CASE1
from wallx_edge import _core
from wallx_edge.errors import WallxError


def test_a_second_thread_is_refused_and_changes_nothing() -> None:
    engine = _core.Engine.load(str(CASE1))
    context = _core.Context(engine, 64)
    context.prefill(np.arange(20))
    noise = np.ones((8, engine.config.action_dim), np.float32)
    alone = context.denoise(noise, np.ones_like(noise), 50)
    refused = threading.Event()
    results: list[np.ndarray] = []
    others: list[str] = []

    def work() -> None:
        # whichever of the two comes second is refused; both go on until that has happened
        while not refused.is_set():
            try:
                results.append(context.denoise(noise, np.ones_like(noise), 50))
            except WallxError as error:
                others.append(str(error))
                refused.set()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert refused.is_set()
    assert all("another thread" in text for text in others)
    assert results
    assert all(np.array_equal(result, alone) for result in results)
