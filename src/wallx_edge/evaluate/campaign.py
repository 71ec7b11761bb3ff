"""Campaign: many episodes with paired seeds, in as many processes as there are cores, and what they say together."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.errors import ConfigError
from wallx_edge.evaluate.episode import Episode, Look, Outcome, run_episode
from wallx_edge.evaluate.expert import STEP
from wallx_edge.evaluate.seeing import Seeing
from wallx_edge.evaluate.taping import Taping
from wallx_edge.evaluate.tasks import TASKS, VARIANTS, make_scene
from wallx_edge.extras import require
from wallx_edge.policy import Policy
from wallx_edge.policy_config import PolicyConfig
from wallx_edge.sim.world import CAMERAS

__all__ = ["Campaign", "Job", "Summary", "interval", "jobs_of", "run_jobs", "summarize"]

EXPERTS = ("expert", "blind")
Z95 = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Campaign:
    """What is evaluated.

    Attributes:
        tasks: of :data:`TASKS`.
        variants: of :data:`VARIANTS`.
        episodes: of each task and variant.
        seed: of the first one; episode i has seed + i, for every policy: scenes are paired.
        policy: ``expert``, ``blind``, or a checkpoint's folder.
        precision: of a checkpoint; empty: as it is packed.
        is_blanked: whether a checkpoint's pictures are black.
    """

    tasks: tuple[str, ...]
    variants: tuple[str, ...] = ("train",)
    episodes: int = 20
    seed: int = 0
    policy: str = "expert"
    precision: str = ""
    is_blanked: bool = False

    def __post_init__(self) -> None:
        for what, names, known in (("task", self.tasks, TASKS), ("variant", self.variants, VARIANTS)):
            for name in names:
                if name not in known:
                    raise ConfigError(f"no {what} {name!r}; there are {', '.join(known)}, or all")
        if not 1 <= self.episodes <= 100_000:
            raise ConfigError(f"episodes is {self.episodes}, expected 1 to 100000")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more")
        if self.policy not in EXPERTS and not Path(self.policy).is_dir():
            raise ConfigError(f"policy {self.policy!r} is neither {', '.join(EXPERTS)} nor a checkpoint's folder")
        if self.policy in EXPERTS and (self.precision or self.is_blanked):
            raise ConfigError("--precision and --blank are for a checkpoint; the scripted ones compute nothing")


@dataclass(frozen=True)
class Job:
    """One episode of a campaign."""

    task: str
    variant: str
    seed: int
    policy: str
    precision: str
    is_blanked: bool
    video: str = ""  # file to write

    def run(self, also: Look | None = None) -> Outcome:
        """Does it. Blocks.

        Args:
            also: a further onlooker.
        """
        scene = make_scene(self.task, self.seed, self.variant)
        with closing(Seeing(self.video)) as seeing:

            def look(episode: Episode, now: float) -> None:
                seeing.look(episode, now)
                if also is not None:
                    also(episode, now)

            if self.policy in EXPERTS:
                return run_episode(scene, self.seed, self.policy, look=look)
            config = PolicyConfig(cameras=tuple(c.role for c in CAMERAS), resolution=224, step=STEP, seed=self.seed)
            policy = Policy(self.policy, config, _engine(self.policy, self.precision))
            return run_episode(scene, self.seed, lambda *_: policy, look=look, is_blanked=self.is_blanked)


@lru_cache(maxsize=1)
def _engine(directory: str, precision: str) -> _core.Engine:
    """Loaded once a process, which computes with one thread."""
    return Computing(precision, threads=1).load(directory)


def jobs_of(campaign: Campaign, videos: Path | None = None, num_videos: int = 1) -> list[Job]:
    """Every episode, in order.

    Args:
        campaign: what is evaluated.
        videos: folder for the first episodes' videos; none without.
        num_videos: of each task and variant.
    """
    jobs = []
    for task in campaign.tasks:
        for variant in campaign.variants:
            for i in range(campaign.episodes):
                job = Job(task, variant, campaign.seed + i, campaign.policy, campaign.precision, campaign.is_blanked)
                if videos is not None and i < num_videos:
                    job = replace(job, video=str(videos / f"{task}-{variant}-{job.seed}.mp4"))
                jobs.append(job)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    on_outcome: Callable[[Outcome], None] | None = None,
    fleet: str = "",
    taping: Taping | None = None,
) -> list[Outcome]:
    """Runs them; the outcomes do not depend on how many processes there are. Blocks.

    Args:
        jobs: to be done.
        workers: processes; 0: one a core, 1: this one.
        on_outcome: called as they come, in order.
        fleet: address of a Ray cluster, or ``local`` for one on this computer; empty: no Ray.
        taping: what keeps the successful ones as a dataset; one process then.

    Raises:
        ConfigError: Ray is asked for and not installed.
    """
    outcomes = []
    for outcome in _mapped(jobs, workers or len(os.sched_getaffinity(0)), fleet, taping):
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return outcomes


def _mapped(jobs: Sequence[Job], workers: int, fleet: str, taping: Taping | None) -> Iterator[Outcome]:
    if taping is not None:
        for job in jobs:
            outcome = job.run(taping.look)
            taping.end(outcome)
            yield outcome
    elif fleet:
        yield from _on_fleet(jobs, fleet)
    elif workers == 1:
        yield from map(Job.run, jobs)
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _alone) as pool:
            yield from pool.map(Job.run, jobs)


def _alone() -> None:
    """A worker's own start: what it computes with one core."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _on_fleet(jobs: Sequence[Job], address: str) -> Iterator[Outcome]:
    ray = require("ray", "fleet", "--fleet")
    ray.init(address=None if address == "local" else address, log_to_driver=False)
    try:
        remote = ray.remote(Job.run)
        for reference in [remote.remote(job) for job in jobs]:
            yield ray.get(reference)
    finally:
        ray.shutdown()


def interval(successes: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (Wilson 1927)."""
    if number == 0:
        return 0.0, 1.0
    rate, z2 = successes / number, Z95**2
    middle = (rate + z2 / (2 * number)) / (1 + z2 / number)
    half = Z95 / (1 + z2 / number) * math.sqrt(rate * (1 - rate) / number + z2 / (4 * number**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Summary:
    """Of one task and variant; medians where not said otherwise.

    Attributes:
        task: its name.
        variant: of the scenes.
        episodes: that were run.
        successes: among them.
        success: share of them.
        low: of the 95 % interval.
        high: of it.
        progress: mean.
        time: until success, of the successful ones [s].
        jerk: of the commands [rad/s^3].
        seam: the worst step at a chunk's boundary, beyond those inside [rad].
        holds: mean a run.
        limited: share of the ticks in which the limiter had any reason.
        refused: chunks, in all.
        errors: episodes that the safety ended.
    """

    task: str
    variant: str
    episodes: int
    successes: int
    success: float
    low: float
    high: float
    progress: float
    time: float
    jerk: float
    seam: float
    holds: float
    limited: float
    refused: int
    errors: int


def summarize(outcomes: Iterable[Outcome]) -> list[Summary]:
    """One line for each task and variant, in the order in which they come."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.task, outcome.variant), []).append(outcome)
    return [_summary(task, variant, group) for (task, variant), group in groups.items()]


def _summary(task: str, variant: str, group: list[Outcome]) -> Summary:
    successes = sum(o.is_success for o in group)
    low, high = interval(successes, len(group))
    times = [o.time for o in group if o.is_success]
    return Summary(
        task=task,
        variant=variant,
        episodes=len(group),
        successes=successes,
        success=successes / len(group),
        low=low,
        high=high,
        progress=float(np.mean([o.progress for o in group])),
        time=float(np.median(times)) if times else math.nan,
        jerk=float(np.median([o.jerk for o in group])),
        seam=max(o.seam for o in group),
        holds=float(np.mean([o.holds for o in group])),
        limited=sum(o.limited for o in group) / max(1, sum(o.ticks for o in group)),
        refused=sum(o.refused for o in group),
        errors=sum(bool(o.error) for o in group),
    )


def against(outcomes: Sequence[Outcome], others: Sequence[Any]) -> dict[str, Any]:
    """Paired with another run's outcomes by task, variant and seed.

    Returns:
        ``pairs``, ``only_this`` and ``only_other``: pairs in which one alone succeeded, ``difference`` of the success
        rates with the half width of its 95 % interval, ``half_width`` (paired normal approximation).
    """
    found = {(o["task"], o["variant"], o["seed"]): bool(o["is_success"]) for o in others}
    pairs = [(o.is_success, found[key]) for o in outcomes if (key := (o.task, o.variant, o.seed)) in found]
    differences = np.array([float(a) - float(b) for a, b in pairs])
    number = len(pairs)
    return {
        "pairs": number,
        "only_this": sum(a and not b for a, b in pairs),
        "only_other": sum(b and not a for a, b in pairs),
        "difference": float(differences.mean()) if number else math.nan,
        "half_width": float(Z95 * differences.std() / math.sqrt(number)) if number else math.nan,
    }
