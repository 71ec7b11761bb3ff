"""Showcase: a task on the simulated robot in real time: the scripted expert decides, the engine computes beside it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.embodiment import load_embodiment
from wallx_edge.evaluate.expert import Expert
from wallx_edge.evaluate.seeing import FPS, filmed
from wallx_edge.evaluate.tasks import Progress, make_scene
from wallx_edge.policy import Follow, Policy
from wallx_edge.sim import MirroredWorld
from wallx_edge.sim.so101 import SO101
from wallx_edge.types import ActionChunk, Observation
from wallx_edge.video import Video

__all__ = ["Showcase"]

AFTERWARDS = 1.5  # that is shown after the success [s]


class _Beside(Expert):
    """The expert's chunks in the engine's time: each inference computes a checkpoint's chunk too, and drops it."""

    def __init__(self, showcase: Showcase, engine: Policy) -> None:
        self._mirror, self._engine = showcase._for_expert, engine
        super().__init__(showcase.scene, self._mirror.world, showcase.progress, load_embodiment("so101"))
        self.num_computed = 0

    @property
    def queue(self) -> _core.InferenceQueue | None:
        return self._engine.queue

    @queue.setter
    def queue(self, queue: _core.InferenceQueue | None) -> None:
        self._engine.queue = queue

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        self._engine.act(observation, deadline=deadline)
        self.num_computed += 1
        self._mirror.refresh()
        return super().act(observation, follow=follow)

    def cancel(self) -> None:
        self._engine.cancel()


class Showcase:
    """Place-by-colour, from its scene to its film; a context manager.

    Attributes:
        scene: what is to be done.
        frames: file of the simulated cameras' pictures.
        progress: so far.
        succeeded_at: time of the success [s], ``None``: not yet.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """Writes the scene; starts nothing.

        Args:
            folder: for the scene, and for the frames where there is no file system in memory.
            seed: of the scene.
        """
        self.scene = make_scene("place_by_colour", seed)
        self._path = folder / "world.json"
        self.scene.world.write(self._path)
        memory = Path("/dev/shm")
        self.frames = (memory if os.access(memory, os.W_OK) else folder.absolute()) / f"wallx-demo-{os.getpid()}"
        self.succeeded_at: float | None = None
        self._film: list[tuple[NDArray[np.float64], str]] = []
        self._stack = ExitStack()
        self._seen_at = -math.inf

    @property
    def options(self) -> tuple[str, ...]:
        """Of ``wallx-edge sim``, which must run before :meth:`open`."""
        return "--world", str(self._path), "--frames", str(self.frames)

    def open(self, engine: Policy) -> Any:
        """Maps what the simulation shows; the policy of the session.

        Args:
            engine: computes a chunk for each of the expert's.

        Raises:
            DeviceError: the simulation does not run.
        """
        self._for_expert = MirroredWorld(SO101.make_world(self.scene.world), self.frames)
        self._stack.callback(self._for_expert.close)
        self._mirror = MirroredWorld(SO101.make_world(self.scene.world), self.frames)
        self._stack.callback(self._mirror.close)
        self.progress = Progress(self.scene, self._mirror.world)
        self._policy = _Beside(self, engine)
        return self._policy

    @property
    def num_computed(self) -> int:
        """Chunks of the engine."""
        return self._policy.num_computed

    def look(self) -> bool:
        """Sees how far it is; true: it is over. Call it every 50 ms."""
        at = self._mirror.refresh()
        if at is None or at <= self._seen_at:
            return False
        self._seen_at = at
        self.progress.see(at)
        said = self._policy.subtask(at)
        share = f"{100 * self.progress.share:.0f} %"
        self._film.append((self._mirror.world.state, f"{self.scene.instruction}   |   {said}   |   {share}"))
        if self.progress.is_success and self.succeeded_at is None:
            self.succeeded_at = at
        return self.succeeded_at is not None and at - self.succeeded_at > AFTERWARDS

    def film(self, path: Path) -> int:
        """Draws what was seen to an mp4; frames of it. Blocks for some 0.1 s a frame.

        Raises:
            ConfigError: PyAV is not installed.
        """
        with Video(path, FPS) as video:
            for state, words in self._film:
                self._mirror.world.show(state)
                video.add(filmed(self._mirror.world, words))
            return video.num_frames

    def __enter__(self) -> Showcase:
        """The showcase itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the frames."""
        self._stack.close()
