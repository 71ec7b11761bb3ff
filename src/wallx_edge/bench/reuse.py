"""What `wallx-edge bench engine` says of reuse: prefixes of two lengths, a shared one, text."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.generation import GenerationConfig, write
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, fast_prompt, subtask_prompt
from wallx_edge.scene import pattern

__all__ = ["bench_reuse"]

HORIZON = 32
NUM_STEPS = 10
NUM_TOKENS = 32


def bench_reuse(checkpoint: Path, engine: _core.Engine, repeats: int = 7) -> dict[str, Any]:
    """Times prefill, one Euler step and one token of text, with a prompt's prefix and with one four times as long.

    Args:
        checkpoint: folder.
        engine: its weights.
        repeats: runs of each; the median counts.

    Returns:
        per prefix: tokens, prefill [ms], step [ms], text [tokens/s] and its slowest token [ms]; the first prefix after
        a subtask's prompt on the same pictures: tokens shared, prefill [ms]; the step's ratio.
    """
    config = engine.config
    processor, tokenizer = ImageProcessor.load(checkpoint), Tokenizer.load(checkpoint)
    cameras = ("face_view", "left_wrist_view", "right_wrist_view")
    pictures = processor.prepare([pattern(1.0, 640, 480, seed) for seed in range(3)], [168] * 3)
    # a state as text is as long as its numbers; which they are does not matter here
    told = " ".join(["128"] * config.state_dim) if config.is_state_text else STATE
    prompt = fast_prompt(cameras, "put the cube on the plate", state=told)
    prefix = tokenizer.layout(prompt, pictures.counts, cameras).ids
    subtask = tokenizer.layout(subtask_prompt(cameras, "tidy the table"), pictures.counts, cameras).ids
    seen = (pictures.pixel_values, pictures.grids)
    filler = tokenizer.encode("and then once more ")
    longer = np.concatenate([prefix, np.resize(filler, 3 * prefix.size)])
    context = _core.Context(engine, max_tokens=longer.size + max(HORIZON, NUM_TOKENS))
    state: tuple[Any, ...] = ()
    if not config.is_state_text:
        state = (tokenizer.special_id(STATE), np.zeros(config.state_dim), np.ones(config.state_dim))
    noise = np.random.default_rng(0).standard_normal((HORIZON, config.action_dim), np.float32)
    rows: list[dict[str, Any]] = []
    for tokens in (prefix, longer):

        def prefill(tokens: Any = tokens, reuse: bool = False) -> int:
            return context.prefill(tokens, *seen, *state, reuse=reuse)

        prefill()
        prefill_ms = _median_ms(prefill, repeats)
        step_ms = _median_ms(lambda: context.denoise(noise, np.ones_like(noise), NUM_STEPS), repeats) / NUM_STEPS
        prefill()
        token_ms = _token_ms(context, tokenizer)
        rows.append(
            {
                "prefix_tokens": int(tokens.size),
                "prefill_ms": prefill_ms,
                "step_ms": step_ms,
                "text_tokens_per_s": 1e3 / statistics.median(token_ms),
                "longest_token_ms": max(token_ms),
            }
        )
    # the clocks of a session: which subtask, then the actions for it, on one observation
    reused = []
    for _ in range(repeats):
        context.prefill(subtask, *seen)
        begin = time.perf_counter()
        shared = context.prefill(prefix, *seen, *state)
        reused.append((time.perf_counter() - begin) * 1e3)
    return {
        "rows": rows,
        "shared_tokens": shared,
        "reused_prefill_ms": statistics.median(reused),
        "step_ratio": rows[1]["step_ms"] / rows[0]["step_ms"],
        # what a step costs when all tokens are computed in it, as in the reference
        "recompute_ratio": (rows[1]["prefill_ms"] + rows[1]["step_ms"]) / rows[1]["step_ms"],
        "prefix_ratio": rows[1]["prefix_tokens"] / rows[0]["prefix_tokens"],
    }


def _token_ms(context: _core.Context, tokenizer: Tokenizer) -> list[float]:
    """Time of each token of a text, the choice and its computation   [ms]"""
    # drawn, so that no weights end it early by a stop; the budget alone does
    tokens = write(context, tokenizer, GenerationConfig(max_tokens=NUM_TOKENS + 1, temperature=1.0), stops=())
    times = []
    for _ in range(NUM_TOKENS):
        begin = time.perf_counter()
        next(tokens)
        times.append((time.perf_counter() - begin) * 1e3)
    return times[1:]  # the first is chosen from what prefill computed


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)
