"""What `wallx-edge bench engine` measures: each stage of a chunk beside the machine's own peaks."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.bench.probe import LEAST, Probe, last_cache_bytes
from wallx_edge.bench.work import PRECISIONS, Precision, Scenario, Work, works
from wallx_edge.computing import Computing
from wallx_edge.errors import ConfigError
from wallx_edge.generation import GenerationConfig, write
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.preprocess import ImageProcessor, Pictures
from wallx_edge.prompts import STATE, Tokenizer, flow_prompt, state_text
from wallx_edge.scene import pattern
from wallx_edge.statistics import inside, sources
from wallx_edge.types import Observation

__all__ = ["CAMERAS", "STAGES", "Asked", "Bench", "bench_engine", "compare", "first_chunks", "precision_of"]

CAMERAS = ("face_view", "left_wrist_view", "right_wrist_view")
FRAME = (640, 480)  # width and height of a camera's picture [px]
PREFIX = 246  # tokens with two cameras, where the instruction can be made as long: scenario A
HORIZON = 32
NUM_TOKENS = 8  # of text, in each repetition
STAGES = ("preprocess", "vision", "prefill", "step", "steps", "token", "chunk")
SWEEP_STEPS = (5, 10, 20)
CACHED = 4  # times the last cache, up to which weights may stay in it


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        precision: of the engine; empty: as the folder is packed, else fp32.
        threads: of the engine and of the probes; 0: one for each core that this process may use.
        steps: of the flow.
        cameras: 1 to 3.
        repeats: of every stage, in turns.
        does_sweep: whether chunks of 1, 2, 3 cameras and of 5, 10, 20 steps are measured too.
    """

    precision: str = ""
    threads: int = 0
    steps: int = 10
    cameras: int = 2
    repeats: int = 5
    does_sweep: bool = False

    def __post_init__(self) -> None:
        if self.precision and self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}; there are: {', '.join(PRECISIONS)}")
        for name, value, least, most in (
            ("threads", self.threads, 0, len(os.sched_getaffinity(0))),
            ("steps", self.steps, 1, 1000),
            ("cameras", self.cameras, 1, len(CAMERAS)),
            ("repeats", self.repeats, 1, 1000),
        ):
            if not least <= value <= most:
                raise ConfigError(f"--{name} is {value}, expected {least} to {most}")

    @property
    def num_threads(self) -> int:
        """``threads``, counted."""
        return self.threads or len(os.sched_getaffinity(0))

    def load(self, checkpoint: Path) -> _core.Engine:
        """The engine that is measured. Blocks while it reads and packs."""
        return Computing(self.precision, threads=self.threads).load(checkpoint)


def bench_engine(
    checkpoint: Path, asked: Asked, engine: _core.Engine | None = None, on_repeat: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Times each stage of a chunk, and the machine's peaks between the stages. Blocks.

    A stage's repetition is compared with the faster of the probes before and after it; the medians count. The work of
    a stage follows from the model's dimensions (:mod:`wallx_edge.bench.work`).

    Args:
        checkpoint: folder.
        asked: what is to be measured.
        engine: its weights, loaded as ``asked`` says; loaded here when not given.
        on_repeat: called after every repetition.

    Returns:
        ``conditions``, ``peaks``, ``stages`` by name, ``chunk_over_bound``, ``reasons`` why the run is not valid, and
        with ``asked.does_sweep`` ``sweep``.

    Raises:
        ConfigError: the engine or the checkpoint cannot do what is asked.
    """
    engine = engine or asked.load(checkpoint)
    precision = precision_of(engine)
    probe = Probe(asked.num_threads, ("int8", "bf16", "fp32"))
    bench = Bench(checkpoint, engine, asked)
    times: dict[str, list[tuple[float, int]]] = {stage: [] for stage in STAGES}
    bench.warm_up()
    probe.take()
    for _ in range(asked.repeats):
        for measure in (bench.see, bench.flow, bench.text, bench.act):
            for stage, seconds in measure().items():
                times[stage].append((seconds, len(probe.taken)))
            probe.take()
        if on_repeat:
            on_repeat()
    stages = {stage: _row(taken, bench.work.get(stage), precision, probe) for stage, taken in times.items()}
    found: dict[str, Any] = {
        "conditions": {
            "checkpoint": str(checkpoint),
            "precision": precision,
            "backend": engine.backend,
            "threads": asked.num_threads,
            "cameras": asked.cameras,
            "frame": list(FRAME),
            "patches": int(bench.scenario.grids.prod(axis=1).sum()),
            "prefix_tokens": bench.scenario.prefix,
            "horizon": HORIZON,
            "steps": asked.steps,
            "repeats": asked.repeats,
        },
        "peaks": probe.summary(),
        "stages": stages,
        "chunk_over_bound": _over_bound(stages),
    }
    found["reasons"] = _reasons(found["peaks"], stages)
    if asked.does_sweep:
        found["sweep"] = _sweep(checkpoint, engine, asked, on_repeat)
    return found


def precision_of(engine: _core.Engine) -> Precision:
    """What the engine computes in, as a key of :data:`PRECISIONS`.

    Raises:
        ConfigError: one whose work is not known here.
    """
    for precision in PRECISIONS:
        if precision == engine.precision:
            return precision
    raise ConfigError(f"the engine's precision is {engine.precision}; known here are {', '.join(PRECISIONS)}")


def first_chunks(checkpoint: Path, asked: Asked, number: int) -> list[float]:
    """Time to load the engine, and then of each of its first chunks. Blocks [s]"""
    load_s, engine = _timed(lambda: asked.load(checkpoint))
    bench = Bench(checkpoint, engine, asked)
    return [load_s, *(bench.act()["chunk"] for _ in range(number))]


def compare(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """Time of each stage now, as a share of the time before.

    Args:
        now: of :func:`bench_engine`.
        before: likewise.

    Raises:
        ConfigError: ``before`` is no such result, or of another scenario.
    """
    try:
        conditions, stages = before["conditions"], before["stages"]
        for key in ("cameras", "patches", "prefix_tokens", "horizon", "steps"):
            if conditions[key] != now["conditions"][key]:
                raise ConfigError(f"--compare: {key} was {conditions[key]}, now it is {now['conditions'][key]}")
        return {stage: now["stages"][stage]["ms"] / float(stages[stage]["ms"]) for stage in STAGES}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--compare: not a result of bench engine --json: {error!r}") from error


class Bench:
    """One scenario on one engine; each call computes something that is in no cache.

    Attributes:
        scenario: its shape.
        work: of each stage.
    """

    def __init__(self, checkpoint: Path, engine: _core.Engine, asked: Asked) -> None:
        """Makes the prompt and the buffers.

        Args:
            checkpoint: folder.
            engine: its weights.
            asked: what is measured.
        """
        config = engine.config
        self._asked, self._config = asked, config
        self._cameras = CAMERAS[: asked.cameras]
        self._processor, self._tokenizer = ImageProcessor.load(checkpoint), Tokenizer.load(checkpoint)
        found = sources(checkpoint, inside(engine))
        self._policy = Policy(
            checkpoint,
            PolicyConfig(
                cameras=self._cameras,
                statistics=found[0].keys[0] if found else None,
                num_steps=asked.steps,
                horizon=HORIZON,
            ),
            engine,
        )
        self._targets = [self._policy.config.resolution[role] for role in self._cameras]
        self._frame = 0
        pictures = self._prepare()
        state = np.zeros(config.state_dim, np.float32)
        told = state_text(state, np.ones_like(state), 256) if config.is_state_text else STATE
        self._instruction = self._long_instruction(told)
        self._ids = self._layout(self._cameras, pictures.counts, self._instruction, told)
        self._state: tuple[Any, ...] = ()
        if not config.is_state_text:
            self._state = (self._tokenizer.special_id(STATE), state, np.ones_like(state))
        self._context = self._policy.context
        self._noise = np.random.default_rng(0).standard_normal((HORIZON, config.action_dim), np.float32)
        self.scenario = Scenario(pictures.grids, int(self._ids.size), HORIZON, asked.steps)
        self.work = works(config, engine.vocab_size, self.scenario)

    def _long_instruction(self, told: str) -> str:
        """Words that make a prompt with two cameras as long as scenario A's, where it is not longer already."""
        counts = self._prepare(2).counts
        words = ["put", "the", "cube", "on", "the", "plate"]
        filler = ("and", "then", "once", "more")
        while self._layout(CAMERAS[:2], counts, " ".join(words), told).size < PREFIX:
            words.append(filler[len(words) % len(filler)])
        return " ".join(words)

    def _layout(self, cameras: Sequence[str], counts: tuple[int, ...], instruction: str, told: str) -> Any:
        prompt = flow_prompt(cameras, instruction, HORIZON, state=told, style=self._policy.config.style)
        return self._tokenizer.layout(prompt, counts, cameras).ids[:-HORIZON]

    def _frames(self, number: int) -> list[Any]:
        self._frame += 1
        return [pattern(0.1 * self._frame, *FRAME, seed) for seed in range(number)]

    def _prepare(self, number: int | None = None) -> Pictures:
        number = number or len(self._cameras)
        targets = (self._targets * 2)[:number]
        return self._processor.prepare(self._frames(number), targets)

    def warm_up(self) -> None:
        """Touches every weight and buffer once."""
        self.see()
        self.flow()
        self.text()
        self.act()

    def see(self) -> dict[str, float]:
        """Preprocessing, vision and prefill of new pictures [s]"""
        frames = self._frames(len(self._cameras))
        prepare, pictures = _timed(lambda: self._processor.prepare(frames, self._targets))
        seen = (pictures.pixel_values, pictures.grids, *self._state)
        self._context.prefill(self._ids, *seen, reuse=False)
        taken = self._context.timings
        return {"preprocess": prepare, "vision": taken.vision, "prefill": taken.prefill}

    def flow(self) -> dict[str, float]:
        """All steps from one noise, and one of them [s]"""
        seconds, _ = _timed(
            lambda: self._context.denoise(
                self._noise,
                np.ones_like(self._noise),
                self._asked.steps,
            )
        )
        return {"step": statistics.median(self._context.timings.steps), "steps": seconds}

    def text(self) -> dict[str, float]:
        """A token of text: its choice and its computation [s]"""
        # drawn, so that no weights end it early; the first is chosen from what the prompt left
        tokens = write(
            self._context,
            self._tokenizer,
            GenerationConfig(max_tokens=NUM_TOKENS + 1, temperature=1.0, seed=self._frame),
            stops=(),
        )
        next(tokens)
        return {"token": statistics.median(_timed(lambda: next(tokens))[0] for _ in range(NUM_TOKENS))}

    def act(self) -> dict[str, float]:
        """A whole chunk from new frames, with nothing kept from the prompt before [s]"""
        images = dict(zip(self._cameras, self._frames(len(self._cameras)), strict=True))
        observation = Observation(images, self._policy.middle_state(), self._instruction, 0.0)
        self._context.prefill(self._ids[1:2])
        seconds, _ = _timed(lambda: self._policy.act(observation))
        return {"chunk": seconds}


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def _row(taken: list[tuple[float, int]], work: Work | None, precision: Precision, probe: Probe) -> dict[str, Any]:
    """A stage's medians: time, rates, and its shares of the peaks beside each repetition."""
    seconds = statistics.median(second for second, _ in taken)
    row: dict[str, Any] = {"ms": seconds * 1e3, "all_ms": [second * 1e3 for second, _ in taken]}
    if work is None:
        return row
    num_bytes = work.num_bytes(precision)
    row |= {
        "operations": work.operations,
        "bytes": num_bytes,
        "operations_per_s": work.operations / seconds,
        "bytes_per_s": num_bytes / seconds,
    }
    bounds, computed, read = [], [], []
    # what stays in a cache is not read from memory again
    is_read = num_bytes > CACHED * last_cache_bytes()
    for second, index in taken:
        peaks = probe.beside(index)
        at_peak = work.seconds_at(precision, peaks) or 0.0
        at_read = num_bytes / peaks["read"] if is_read else 0.0
        bounds.append(max(at_peak, at_read))
        computed.append(at_peak / second)
        read.append(at_read / second)
    row |= {
        "bound_ms": statistics.median(bounds) * 1e3,
        "compute_share": statistics.median(computed),
        "read_share": statistics.median(read),
    }
    row["bound_by"] = "compute" if row["compute_share"] >= row["read_share"] else "read"
    row["share"] = max(row["compute_share"], row["read_share"])
    return row


def _over_bound(stages: Mapping[str, Mapping[str, Any]]) -> float:
    """A chunk's time over the sum of its stages' bounds."""
    bound = sum(stages[stage]["bound_ms"] for stage in ("vision", "prefill", "steps"))
    return float(stages["chunk"]["ms"] / bound)


def _reasons(peaks: Mapping[str, Mapping[str, Any]], stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why a run cannot be believed; empty: it can."""
    found = [
        f"the {kind} peak is {row['share']:.0%} of cores x clock x width, expected {LEAST:.0%} or more: "
        "something else uses the processor"
        for kind, row in peaks.items()
        if row.get("share") is not None and row["share"] < LEAST
    ]
    found += [
        f"{stage} reaches {row['share']:.0%} of the {row['bound_by']} peak, which cannot be"
        for stage, row in stages.items()
        if row.get("share", 0) > 1
    ]
    return found


def _sweep(
    checkpoint: Path, engine: _core.Engine, asked: Asked, on_repeat: Callable[[], None] | None
) -> dict[str, Any]:
    """Chunks of every number of cameras with ten steps, and of every number of steps with two cameras, in turns."""
    cases = [("cameras", n, n, 10) for n in range(1, len(CAMERAS) + 1)]
    cases += [("steps", n, 2, n) for n in SWEEP_STEPS]
    benches = [
        Bench(checkpoint, engine, replace(asked, steps=steps, cameras=cameras)) for _, _, cameras, steps in cases
    ]
    times: list[list[float]] = [[] for _ in cases]
    for repeat in range(asked.repeats + 1):
        for bench, taken in zip(benches, times, strict=True):
            seconds = bench.act()["chunk"]
            if repeat:  # the first only warms up
                taken.append(seconds * 1e3)
        if on_repeat:
            on_repeat()
    found: dict[str, Any] = {}
    for name in ("cameras", "steps"):
        points = [
            (value, statistics.median(taken))
            for (kind, value, _, _), taken in zip(cases, times, strict=True)
            if kind == name
        ]
        x, y = (np.array(values, float) for values in zip(*points, strict=True))
        slope, start = np.polyfit(x, y, 1)
        found[name] = {
            "values": [int(v) for v in x],
            "ms": [float(v) for v in y],
            "ms_each": float(slope),
            "ms_fixed": float(start),
            "off_line": float(np.abs(y - (start + slope * x)).max() / y.mean()),
        }
    return found
