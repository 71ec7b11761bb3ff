"""Benchmark: what `wallx-edge bench` measures; every number with what it is compared to, from the same run."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core, demo
from wallx_edge.embodiment import load_calibration, load_embodiment, with_drops
from wallx_edge.errors import DeviceError
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import STATE, Tokenizer, flow_prompt
from wallx_edge.robot import lateness_us
from wallx_edge.scene import pattern
from wallx_edge.session import Status
from wallx_edge.sim import SimProcess, openarm, read_log
from wallx_edge.synth import Dtype, synth

__all__ = ["bench_can_loop", "bench_engine", "bench_load", "bench_loop"]

HORIZON = 32
NUM_STEPS = 10


def bench_engine(checkpoint: Path, repeats: int = 7) -> dict[str, Any]:
    """Times prefill and one Euler step, with a prompt's prefix and with one four times as long.

    Args:
        checkpoint: folder.
        repeats: runs of each; the median counts.

    Returns:
        per prefix: tokens, prefill [ms], step [ms]; the step's ratio; fp32 rates of the engine and of numpy [GFLOP/s].
    """
    engine = _core.Engine.load(str(checkpoint))
    config = engine.config
    processor, tokenizer = ImageProcessor.load(checkpoint), Tokenizer.load(checkpoint)
    cameras = ("face_view", "left_wrist_view", "right_wrist_view")
    pictures = processor.prepare([pattern(1.0, 640, 480, seed) for seed in range(3)], [168] * 3)
    ids = tokenizer.layout(flow_prompt(cameras, "put the cube on the plate", HORIZON), pictures.counts, cameras).ids
    prefix = ids[:-HORIZON]
    filler = tokenizer.encode("and then once more ")
    longer = np.concatenate([prefix, np.resize(filler, 3 * prefix.size)])
    context = _core.Context(engine, max_tokens=longer.size + HORIZON)
    state, mask = np.zeros(config.state_dim, np.float32), np.ones(config.state_dim, np.float32)
    noise = np.random.default_rng(0).standard_normal((HORIZON, config.action_dim), np.float32)
    rows: list[dict[str, Any]] = []
    for tokens in (prefix, longer):

        def prefill(tokens: Any = tokens) -> None:
            context.prefill(tokens, pictures.pixel_values, pictures.grids, tokenizer.special_id(STATE), state, mask)

        prefill()
        prefill_ms = _median_ms(prefill, repeats)
        step_ms = _median_ms(lambda: context.denoise(noise, np.ones_like(noise), NUM_STEPS), repeats) / NUM_STEPS
        rows.append({"prefix_tokens": int(tokens.size), "prefill_ms": prefill_ms, "step_ms": step_ms})
    text = config.expert_sizes[0]
    projections = config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    flops = 2 * rows[1]["prefix_tokens"] * config.num_layers * (projections + 3 * config.hidden_size * text)
    return {
        "checkpoint": str(checkpoint),
        "rows": rows,
        "step_ratio": rows[1]["step_ms"] / rows[0]["step_ms"],
        # what a step costs when all tokens are computed in it, as in the reference
        "recompute_ratio": (rows[1]["prefill_ms"] + rows[1]["step_ms"]) / rows[1]["step_ms"],
        "prefix_ratio": rows[1]["prefix_tokens"] / rows[0]["prefix_tokens"],
        # products of the language part only, over the whole prefill: a lower bound
        "engine_gflops": flops / rows[1]["prefill_ms"] / 1e6,
        "numpy_gflops": _numpy_gflops(repeats),
    }


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


def bench_loop(
    duration: float = 20.0, rate_hz: float = 200.0, busy: int = 2, on_tick: Callable[[Status], None] | None = None
) -> dict[str, Any]:
    """Runs the control loop on an emulated arm while the engine computes and other processes keep the cores busy.

    Args:
        duration: [s]
        rate_hz: of the loop [1/s].
        busy: processes that only count.
        on_tick: called about every 50 ms.

    Returns:
        lateness [us], shares of overruns and of periods with fresh feedback from every servo, counters.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sim = stack.enter_context(SimProcess("so101", link=folder / "port"))
        config = demo.prepare(folder, folder / "port", rate_hz)
        stack.enter_context(_busy(busy))
        show = on_tick or (lambda status: None)
        columns, chunks, found = demo.run(config, "hold still", duration, lambda robot, session: show)
        is_realtime = sim.is_realtime
    period = 1 / rate_hz
    moving = columns["has_command"].astype(bool)
    fresh = (columns["sample_age"][moving] < period).all(axis=1) & (columns["read_code"][moving] == 0)
    lateness = found["lateness"]  # with whole periods, which a tick's own lateness leaves out
    counters = found["counters"]
    ticks = int(moving.sum())
    return {
        "rate_hz": rate_hz,
        "busy_processes": busy,
        "cores": os.cpu_count(),
        "ticks": ticks,
        "chunks": len(chunks),
        "lateness_p50_us": lateness_us(lateness, 0.5),
        "lateness_p99_us": lateness_us(lateness, 0.99),
        "lateness_max_us": lateness_us(lateness, 1.0),
        "read_p50_us": float(np.quantile(columns["read_us"][moving], 0.5)),
        "overrun_share": counters["overruns"] / max(1, counters["ticks"]),
        "skipped_periods": counters["skipped_periods"],
        "fresh_share": float(fresh.mean()),
        "loop_is_fifo": found["real_time"]["is_fifo"],
        "emulator_is_fifo": is_realtime,
    }


def bench_can_loop(duration: float = 10.0, busy: int = 2) -> list[dict[str, Any]]:
    """Runs the control loop on eight emulated Damiao motors, whose line keeps the pace of its bits.

    Args:
        duration: of each run [s]: 300 Hz on a classic line, 500 Hz on a line with FD.
        busy: processes that only count.

    Returns:
        per run: lateness [us], shares of the line's time in use, of overruns and of periods with fresh feedback.
    """
    return [_can_loop(rate_hz, data, duration, busy) for rate_hz, data in ((300.0, 0), (500.0, 5_000_000))]


def _can_loop(rate_hz: float, data_bit_rate: int, duration: float, busy: int) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        openarm.write_calibration(folder / "unit.json")
        options = [] if data_bit_rate else ["--classic"]
        sim = stack.enter_context(
            SimProcess("openarm", link=folder / "port", log=folder / "log.jsonl", options=options)
        )
        embodiment, _ = with_drops(load_embodiment("openarm"), False)
        bus = _core.BusConfig(kind="slcan", port=str(folder / "port"), data_bit_rate=data_bit_rate)
        robot = _core.make_robot(embodiment, load_calibration(folder / "unit.json", embodiment), bus)
        loop = _core.ControlLoop(robot, rate_hz=rate_hz, ring_capacity=1 << 15)
        robot.connect()
        stack.callback(robot.disconnect)
        stack.callback(loop.stop)
        loop.start()
        stack.enter_context(_busy(busy))
        loop.enable()
        _wait_for_state(loop, "armed")
        loop.drain(1 << 15)
        end = time.monotonic() + duration
        began = np.array(_newest(loop)["command"])
        while (now := time.monotonic()) < end:
            # a slow wave of elbow and wrist, a second ahead
            at = now - (end - duration) + np.linspace(0, 1, 26)
            wave = (1 - np.cos(2 * at))[:, None] * np.array([0, 0, 0, 0.3, 0.1, 0.1, 0.1, 0])
            loop.submit(began + wave * np.minimum(at, 1)[:, None], now, 0.04, loop.generation)
            time.sleep(0.4)
        columns = loop.drain(1 << 15)
        counters, lateness, real_time = loop.counters(), loop.lateness_histogram(), loop.real_time
        report = loop.fault_report()
        if report is not None:
            raise DeviceError(report["message"])
        loop.stop()
        sim.stop()
        carried = next(r for r in reversed(read_log(folder / "log.jsonl")) if r["kind"] == "end")["counters"]
    moving = columns["has_command"].astype(bool)
    # an answer is read in the period after its command: it is fresh when no period was left out
    fresh = (columns["sample_age"][moving] < 1.1 / rate_hz).all(axis=1) & (columns["read_code"][moving] == 0)
    return {
        "rate_hz": rate_hz,
        "data_bit_rate": data_bit_rate,
        "motors": len(embodiment.joints),
        "busy_processes": busy,
        "ticks": int(moving.sum()),
        "lateness_p50_us": lateness_us(lateness, 0.5),
        "lateness_p99_us": lateness_us(lateness, 0.99),
        "lateness_max_us": lateness_us(lateness, 1.0),
        "read_p50_us": float(np.quantile(columns["read_us"][moving], 0.5)),
        "read_p99_us": float(np.quantile(columns["read_us"][moving], 0.99)),
        "frames_per_tick": (carried["frames_received"] + carried["answers"]) / max(1, counters["ticks"]),
        "busy_us_per_tick": carried["busy_ns"] / 1e3 / max(1, counters["ticks"]),
        "line_share": carried["busy_ns"] * 1e-9 * rate_hz / max(1, counters["ticks"]),
        "overrun_share": counters["overruns"] / max(1, counters["ticks"]),
        "skipped_periods": counters["skipped_periods"],
        "fresh_share": float(fresh.mean()),
        "loop_is_fifo": real_time["is_fifo"],
        "emulator_is_fifo": sim.is_realtime,
        "emulator_lateness_max_us": carried["max_lateness_ns"] / 1e3,
    }


def _newest(loop: _core.ControlLoop) -> _core.LoopRecord:
    record = loop.snapshot()
    if record is None:
        raise DeviceError("the loop has not ticked")
    return record


def _wait_for_state(loop: _core.ControlLoop, state: str) -> None:
    end = time.monotonic() + 5
    while loop.state != state:
        if time.monotonic() > end:
            raise DeviceError(f"the loop is in state {loop.state!r}, expected {state!r}")
        time.sleep(0.005)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    processes: list[BaseProcess] = [spawn.Process(target=_count, args=(stop,), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        stop.set()
        for process in processes:
            process.join()


def _count(stop: Event) -> None:
    number = 0
    while True:
        number += 1
        if number % 1_000_000 == 0 and stop.is_set():
            return
