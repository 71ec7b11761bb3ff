"""The inference queue from Python: policies and reasoners compute in it, and guided flows agree with numpy."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import arm_model
from wallx_edge import _core
from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.generation import GenerationConfig
from wallx_edge.policy import Follow, Policy
from wallx_edge.reasoner import Reasoner


@pytest.fixture
def queue() -> Iterator[_core.InferenceQueue]:
    with closing(_core.InferenceQueue()) as queue:
        yield queue


def a_policy(checkpoint: Path) -> Policy:
    return Policy.load(checkpoint, arm_model.CONFIG)


def numpy_weights(start: int, end: int, horizon: int) -> np.ndarray:
    i = np.arange(horizon)
    w = np.clip((start - 1 - i) / (end - start + 1) + 1, 0, 1)
    w = w * (np.exp(w) - 1) / (np.e - 1)
    return np.where(i < end, w, 0)


def numpy_gain(tau: float, beta: float) -> float:
    if tau == 0:
        return beta
    return min((1 - tau) / tau * (tau**2 + (1 - tau) ** 2) / (1 - tau) ** 2, beta)


@pytest.mark.parametrize(("start", "end", "horizon"), [(2, 6, 10), (0, 0, 4), (0, 5, 9), (4, 4, 4), (3, 12, 16)])
def test_weights_agree_with_numpy(start: int, end: int, horizon: int) -> None:
    found = _core.guidance_weights(start, end, horizon)
    np.testing.assert_allclose(found, numpy_weights(start, end, horizon), atol=1e-6)


def test_a_guided_flow_agrees_with_numpy(tiny_checkpoint: Path) -> None:
    """Every step's velocity, from what the network said, and the frozen rows at the end."""
    policy = a_policy(tiny_checkpoint)
    policy.observe(arm_model.look())
    random = np.random.default_rng(1)
    shape = (16, 6)
    noise, previous = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    weights = _core.guidance_weights(3, 9, 16)
    out, steps = policy.context.denoise(
        noise, np.ones(shape), previous=previous, guidance=weights, num_frozen=3, max_guidance=5.0, trace=True
    )
    for i, tau in enumerate(steps["t"]):
        x, raw = steps["x"][i].astype(np.float64), steps["v_raw"][i].astype(np.float64)
        expected = raw + numpy_gain(float(tau), 5.0) * weights[:, None] * (previous - (x + (1 - tau) * raw))
        np.testing.assert_allclose(steps["v"][i], expected, rtol=1e-4, atol=1e-4)
        alone = _core.guide_velocity(steps["v_raw"][i], steps["x"][i], float(tau), previous, weights, 5.0)
        np.testing.assert_array_equal(alone, steps["v"][i])
    np.testing.assert_array_equal(out[:3], previous[:3])


def test_rows_that_are_followed_come_out_exactly_in_si(tiny_checkpoint: Path) -> None:
    policy = a_policy(tiny_checkpoint)
    before = policy.act(arm_model.look(0.0))
    chunk = policy.act(arm_model.look(0.4), follow=Follow(before.rows[4:], 3))
    np.testing.assert_array_equal(chunk.rows[:3], before.rows[4:7])
    free = a_policy(tiny_checkpoint).act(arm_model.look(0.4))
    # the next row is drawn toward the previous one
    assert np.abs(chunk.rows[3] - before.rows[7]).max() < 0.5 * np.abs(free.rows[3] - before.rows[7]).max()


@pytest.mark.parametrize(
    ("rows", "frozen", "message"), [((17, 6), 0, "at most 16 rows"), ((4, 5), 0, "of 6"), ((4, 6), 5, "5 frozen rows")]
)
def test_rows_that_cannot_be_followed_are_refused(
    tiny_checkpoint: Path, rows: tuple[int, int], frozen: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        a_policy(tiny_checkpoint).act(arm_model.look(), follow=Follow(np.zeros(rows), frozen))


def test_the_queue_changes_no_bit_of_a_chunk(tiny_checkpoint: Path, queue: _core.InferenceQueue) -> None:
    alone, queued = a_policy(tiny_checkpoint), a_policy(tiny_checkpoint)
    queued.queue = queue
    for t in (0.0, 0.3):
        look = arm_model.look(t)
        np.testing.assert_array_equal(queued.act(look, deadline=look.captured_at).rows, alone.act(look).rows)
        assert queued.shared_tokens == alone.shared_tokens


def test_chunks_and_words_share_a_queue_and_change_no_bit(tiny_checkpoint: Path, queue: _core.InferenceQueue) -> None:
    policy = a_policy(tiny_checkpoint)
    look = arm_model.look()
    alone = Reasoner.beside(a_policy(tiny_checkpoint))
    config = GenerationConfig(max_tokens=60)
    images = list(look.images.values())
    expected = alone.ask(images, "what?", config).generated.ids
    rows = a_policy(tiny_checkpoint).act(look, np.zeros((16, 6), np.float32)).rows
    policy.act(look)
    reasoner = Reasoner(policy.directory, policy.config, policy.engine, policy.context.fork())
    policy.queue = reasoner.queue = queue
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(reasoner.ask(images, "what?", config).generated.ids))
    thread.start()
    count = 0
    while thread.is_alive():
        np.testing.assert_array_equal(policy.act(look, np.zeros((16, 6), np.float32), deadline=1.0).rows, rows)
        count += 1
    thread.join()
    np.testing.assert_array_equal(found[0], expected)
    assert count > 0
    assert queue.counters()["failed"] == 0


def test_a_reasoner_on_a_fork_computes_no_picture_again(tiny_checkpoint: Path, queue: _core.InferenceQueue) -> None:
    policy = a_policy(tiny_checkpoint)
    policy.queue = queue
    look = arm_model.look()
    policy.act(look)
    assert policy.context.num_pictures == 2
    reasoner = Reasoner(policy.directory, policy.config, policy.engine, policy.context.fork())
    reasoner.queue = queue
    texts: list[str] = []
    images = [look.images[role] for role in policy.config.cameras]
    answer = reasoner.ask(images, "what?", GenerationConfig(max_tokens=3), texts.append, resolution=128)
    assert reasoner.context.num_pictures == 0
    assert answer.prefill_s > 0 and len(texts) == 3


def test_a_budget_that_does_not_fit_is_refused_before_anything_is_computed(
    tiny_checkpoint: Path, queue: _core.InferenceQueue
) -> None:
    reasoner = Reasoner.beside(a_policy(tiny_checkpoint))
    reasoner.queue = queue
    look = arm_model.look()
    with pytest.raises(ConfigError, match="more than the context holds"):
        reasoner.ask(list(look.images.values()), "what?", GenerationConfig(max_tokens=3000))
    assert queue.counters()["done"] == 0


def test_words_can_be_cancelled_and_the_reasoner_asked_again(
    tiny_checkpoint: Path, queue: _core.InferenceQueue
) -> None:
    reasoner = Reasoner.beside(a_policy(tiny_checkpoint))
    reasoner.queue = queue
    images = list(arm_model.look().images.values())
    seen: list[str] = []

    def stop_at_third(text: str) -> bool:
        seen.append(text)
        return len(seen) < 3

    answer = reasoner.ask(images, "what?", GenerationConfig(max_tokens=1500), stop_at_third)
    assert answer.generated.ended == "cancelled"
    assert len(answer.generated.ids) == 3
    again = reasoner.ask(images, "what?", GenerationConfig(max_tokens=3))
    np.testing.assert_array_equal(again.generated.ids, answer.generated.ids)


def test_a_chunk_that_is_cancelled_says_so(tiny_checkpoint: Path, queue: _core.InferenceQueue) -> None:
    policy = a_policy(tiny_checkpoint)
    policy.queue = queue
    queue.close()
    with pytest.raises(WallxError, match="closed"):
        policy.act(arm_model.look())
