"""What `wallx-edge bench engine` and `bench load` measure."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.embodiment import load_embodiment
from wallx_edge.generation import GenerationConfig, write
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, fast_prompt, subtask_prompt
from wallx_edge.scene import pattern
from wallx_edge.synth import Dtype, synth

__all__ = ["bench_engine", "bench_load"]

HORIZON = 32
NUM_STEPS = 10
NUM_TOKENS = 32


def bench_engine(checkpoint: Path, repeats: int = 7, computing: Computing | None = None) -> dict[str, Any]:
    """Times prefill, one Euler step and one token of text, with a prompt's prefix and with one four times as long.

    Args:
        checkpoint: folder.
        repeats: runs of each; the median counts.
        computing: how; its defaults when not given.

    Returns:
        per prefix: tokens, prefill [ms], step [ms], text [tokens/s] and its slowest token [ms]; the first prefix after
        a subtask's prompt on the same pictures: tokens shared, prefill [ms]; the step's ratio; fp32 rates of the engine
        and of numpy [GFLOP/s].
    """
    computing = computing or Computing()
    engine = computing.load(checkpoint)
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
    text = config.expert_sizes[0]
    projections = config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    flops = 2 * rows[1]["prefix_tokens"] * config.num_layers * (projections + 3 * config.hidden_size * text)
    return {
        "checkpoint": str(checkpoint),
        "computing": computing.report(engine),
        "rows": rows,
        "shared_tokens": shared,
        "reused_prefill_ms": statistics.median(reused),
        "step_ratio": rows[1]["step_ms"] / rows[0]["step_ms"],
        # what a step costs when all tokens are computed in it, as in the reference
        "recompute_ratio": (rows[1]["prefill_ms"] + rows[1]["step_ms"]) / rows[1]["step_ms"],
        "prefix_ratio": rows[1]["prefix_tokens"] / rows[0]["prefix_tokens"],
        # products of the language part only, over the whole prefill: a lower bound
        "engine_gflops": flops / rows[1]["prefill_ms"] / 1e6,
        "numpy_gflops": _numpy_gflops(repeats),
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


def _numpy_gflops(repeats: int) -> float:
    side = 1024
    a = np.random.default_rng(0).standard_normal((side, side), np.float32)
    return 2 * side**3 / _median_ms(lambda: a @ a, repeats) / 1e6


def bench_load(size: str = "medium") -> list[dict[str, Any]]:
    """Loads a synthetic checkpoint in a fresh process per file type and reports its peak resident memory.

    Args:
        size: of :data:`wallx_edge.synth.SIZES`.

    Returns:
        per type: weights in fp32 [MB], growth of the peak while loading and touching every weight [MB], their ratio.
    """
    rows: list[dict[str, Any]] = []
    dtypes: tuple[Dtype, ...] = ("f32", "bf16", "f16")
    joints = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
    spawn = multiprocessing.get_context("spawn")
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint"
            synth(size, checkpoint, joints, "so101", dtype=dtype)
            receiver, sender = spawn.Pipe(duplex=False)
            child = spawn.Process(target=_load, args=(str(checkpoint), sender))
            child.start()
            sender.close()
            row = receiver.recv()
            child.join()
            receiver.close()
        rows.append({"dtype": dtype, **row, "ratio": row["growth_mb"] / row["fp32_mb"]})
    return rows


def _load(checkpoint: str, sender: Any) -> None:
    before = _peak_mb()
    begin = time.perf_counter()
    engine = _core.Engine.load(checkpoint)
    seconds = time.perf_counter() - begin
    if engine.mapped_bytes:
        # what is mapped becomes resident when it is read, tensor by tensor; the copies are small and freed
        for name in engine.tensor_names:
            engine.tensor(name)
    sender.send(
        {
            "fp32_mb": (engine.mapped_bytes + engine.widened_bytes) / 1e6,
            "growth_mb": _peak_mb() - before,
            "load_s": seconds,
        }
    )
    sender.close()


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")
