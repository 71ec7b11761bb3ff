"""Kinematics: one arm's joints to its tool's pose and back, from a URDF or MJCF that MuJoCo reads."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError
from wallx_edge.extras import require

__all__ = ["Kinematics", "Tracked", "load_model"]

Floats = NDArray[np.float64]

POSITION = 1e-4  # a pose is met within this [m]
ROTATION = math.radians(0.1)  # and this [rad]
# A metre of the position against a radian of the rotation, in the sum of squares that is made small: so much that an
# arm with too few joints meets the position and leaves the rotation what remains.
WEIGHT = 300.0
DAMPING = 1e-10  # of the normal matrix, relative to its trace: what keeps steps small near a singular pose
LONGEST = 0.3  # of one step of the search, any joint [rad]
MAX_STEPS = 60
STARTS = 300  # that a first pose is looked for from, when the seed leads nowhere


def load_model(path: Path) -> Any:
    """Reads a URDF or MJCF with MuJoCo; its meshes are not looked for.

    Raises:
        ConfigError: MuJoCo is not installed; no such file; not a model, or one with a mass below 0.
    """
    mujoco = require("mujoco", "kinematics", "[kinematics] of a robot's file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the robot's model {path} cannot be read: {error}") from error
    _check_masses(text, path)
    try:
        if "<robot" in text:  # a URDF: links without inertia are common and do not matter here
            spec = mujoco.MjSpec.from_string(text)
            spec.compiler.discardvisual = True
            spec.compiler.balanceinertia = True
            spec.compiler.boundmass = spec.compiler.boundinertia = 1e-6
            spec.compiler.fusestatic = False
            model = spec.compile()
        else:
            model = mujoco.MjModel.from_xml_string(text)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the robot's model {path} is refused: {str(error).strip()}") from error
    if model.neq:
        raise ConfigError(f"the robot's model {path} has {model.neq} equality constraints: loops are not followed")
    return model


def _check_masses(text: str, path: Path) -> None:
    """MuJoCo raises masses that are too small, and passes over some that are no numbers."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"the robot's model {path} is refused: {error}") from error
    for element in root.iter():
        said = element.get("value" if element.tag == "mass" else "mass")
        if said is None:
            continue
        try:
            is_good = math.isfinite(float(said)) and float(said) >= 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ConfigError(f"the robot's model {path} is refused: a mass is {said!r}, expected 0 kg or more")


@dataclass(frozen=True, eq=False)
class Tracked:
    """Joint rows for a path of poses.

    Attributes:
        rows: [rad]   (n, joints)
        position_error: what is left [m]   (n)
        rotation_error: what is left [rad]   (n)
    """

    rows: Floats
    position_error: Floats
    rotation_error: Floats


class Kinematics:
    """One arm of a robot. Not for two threads at once.

    The pose is the tool's in the frame of the model's world. Where an arm has fewer than six joints, the position is
    met and the rotation as nearly as its joints allow.

    Attributes:
        joints: names, in the order of every joint array here.
        low: limits [rad]   (joints)
        high: [rad]   (joints)
    """

    def __init__(
        self, model: Any, joints: Sequence[str], tool: str, low: Sequence[float], high: Sequence[float], where: str
    ) -> None:
        """Finds the arm in a model.

        Args:
            model: of :func:`load_model`.
            joints: from the base to the tool.
            tool: site, or body, whose pose it is.
            low: limits of the joints [rad]; the model's own hold as well.
            high: [rad]
            where: the model's file, for messages.

        Raises:
            ConfigError: a joint or tool that is not there, joints that are no hinges or slides, in another order, or
                that do not move the tool.
        """
        import mujoco

        self._mujoco, self._model, self._data = mujoco, model, mujoco.MjData(model)
        self.joints = tuple(joints)
        known = [model.joint(i).name for i in range(model.njnt)]
        ids = []
        for name in self.joints:
            if name not in known:
                raise ConfigError(f"{where} has no joint {name}; it has {', '.join(filter(None, known)) or 'none'}")
            ids.append(known.index(name))
            if int(model.jnt_type[ids[-1]]) not in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
                raise ConfigError(f"{where}: joint {name} is neither hinge nor slide")
        sites = [model.site(i).name for i in range(model.nsite)]
        bodies = [model.body(i).name for i in range(model.nbody)]
        if tool in sites:
            self._is_site, self._tool, body = True, sites.index(tool), int(model.site_bodyid[sites.index(tool)])
        elif tool in bodies:
            self._is_site, self._tool, body = False, bodies.index(tool), bodies.index(tool)
        else:
            raise ConfigError(f"{where} has no site or body {tool}; it has {', '.join(filter(None, sites + bodies))}")
        chain = []
        while body:
            chain.append(body)
            body = int(model.body_parentid[body])
        on_way = [i for b in reversed(chain) for i in range(model.njnt) if model.jnt_bodyid[i] == b]
        for name, index in zip(self.joints, ids, strict=True):
            if index not in on_way:
                raise ConfigError(f"{where}: joint {name} does not move {tool}")
        if ids != sorted(ids, key=on_way.index):
            order = [known[i] for i in on_way if i in ids]
            raise ConfigError(f"{where}: the joints are to be named from the base on: {', '.join(order)}")
        if len(on_way) > len(ids):  # it would be taken to stand at zero
            missing = next(known[i] for i in on_way if i not in ids)
            raise ConfigError(f"{where}: joint {missing} moves {tool} too; it must be among the arm's joints")
        self._qpos = model.jnt_qposadr[ids].copy()
        self._dofs = model.jnt_dofadr[ids].copy()
        self.low, self.high = np.array(low, np.float64), np.array(high, np.float64)
        for k, index in enumerate(ids):
            if model.jnt_limited[index]:
                self.low[k] = max(self.low[k], model.jnt_range[index, 0])
                self.high[k] = min(self.high[k], model.jnt_range[index, 1])
        if not (self.low < self.high).all():
            worst = self.joints[int(np.argmax(self.low - self.high))]
            raise ConfigError(f"{where}: joint {worst} has no range in common with the robot's limits")
        self._jacobian = np.zeros((6, model.nv))
        self._weights = np.array([WEIGHT] * 3 + [1.0] * 3)
        self._error = np.zeros(6)
        self._quaternion, self._wanted = np.zeros(4), np.zeros(4)

    def forward(self, rows: NDArray[Any]) -> tuple[Floats, Floats]:
        """The tool's poses.

        Args:
            rows: [rad]   (n, joints)

        Returns:
            positions [m] (n, 3) and rotations (n, 3, 3)
        """
        rows = np.atleast_2d(np.asarray(rows, np.float64))
        positions, rotations = np.empty((len(rows), 3)), np.empty((len(rows), 3, 3))
        for i, row in enumerate(rows):
            self._put(row)
            positions[i], matrix = self._pose()
            rotations[i] = matrix.reshape(3, 3)
        return positions, rotations

    def track(self, positions: NDArray[Any], rotations: NDArray[Any], seed: NDArray[Any]) -> Tracked:
        """Joint rows along a path: each search begins where the row before ended.

        Damped Gauss-Newton on the weighted pose error (Levenberg 1944), steps bounded, joints kept inside their limits.

        Args:
            positions: of the tool [m]   (n, 3)
            rotations: of the tool   (n, 3, 3)
            seed: joints to begin from [rad]   (joints)

        Returns:
            rows and what is left of each pose's error; nothing is refused here.
        """
        q = np.clip(np.asarray(seed, np.float64), self.low, self.high)
        number = len(positions)
        rows, errors = np.empty((number, len(q))), np.empty((number, 2))
        before: Floats | None = None
        for i in range(number):
            # as the path went on so far
            start = q if before is None else np.clip(2 * q - before, self.low, self.high)
            before = q
            q, errors[i] = self._search(positions[i], rotations[i], start)
            rows[i] = q
        return Tracked(rows, errors[:, 0], errors[:, 1])

    def inverse(
        self, position: NDArray[Any], rotation: NDArray[Any], seed: NDArray[Any], random_seed: int = 0
    ) -> Tracked:
        """One pose, from anywhere: where the seed leads nowhere, others are tried; the nearest is kept.

        Args:
            position: [m]   (3)
            rotation: (3, 3)
            seed: joints to begin from [rad]   (joints)
            random_seed: of the other beginnings.
        """
        random = np.random.default_rng(random_seed)
        best: tuple[float, Floats, Floats] | None = None
        start = np.asarray(seed, np.float64)
        for _ in range(STARTS):
            q, error = self._search(position, rotation, np.clip(start, self.low, self.high))
            if best is None or float(error @ [WEIGHT, 1.0]) < best[0]:
                best = float(error @ [WEIGHT, 1.0]), q, error
            if error[0] <= POSITION and error[1] <= ROTATION:
                break
            start = random.uniform(self.low, self.high)
        assert best is not None
        return Tracked(best[1][np.newaxis], best[2][:1], best[2][1:])

    def _put(self, q: Floats) -> None:
        self._data.qpos[self._qpos] = q
        self._mujoco.mj_kinematics(self._model, self._data)

    def _pose(self) -> tuple[Floats, Floats]:
        if self._is_site:
            return self._data.site_xpos[self._tool], self._data.site_xmat[self._tool]
        return self._data.xpos[self._tool], self._data.xmat[self._tool]

    def _search(self, position: Floats, rotation: Floats, start: Floats) -> tuple[Floats, Floats]:
        """The joints nearest to a pose from a beginning, and what is left [m] [rad]."""
        mujoco, model, data, error = self._mujoco, self._model, self._data, self._error
        mujoco.mju_mat2Quat(self._wanted, np.ascontiguousarray(rotation, np.float64).ravel())
        q, left = start, math.inf
        damping = DAMPING
        best, best_error = start, np.array([math.inf, math.inf])
        for _ in range(MAX_STEPS):
            self._put(q)
            at, matrix = self._pose()
            error[:3] = position - at
            mujoco.mju_mat2Quat(self._quaternion, matrix)
            mujoco.mju_subQuat(error[3:], self._wanted, self._quaternion)  # in the tool's frame
            p, r = math.sqrt(error[0] ** 2 + error[1] ** 2 + error[2] ** 2), math.sqrt(error[3:] @ error[3:])
            now = (WEIGHT * p) ** 2 + r**2
            if now < left:
                stalls = now > left * (1 - 1e-6)
                left, best, best_error[0], best_error[1] = now, q, p, r
                damping = max(DAMPING, damping / 10)
                # well below what counts as met, so that rows along a path do not jitter
                if (p < POSITION / 50 and r < ROTATION / 50) or stalls:
                    break
            else:
                damping *= 20
                if damping > 1:
                    break
                q = best
                self._put(q)
                at, matrix = self._pose()
                error[:3] = position - at
                mujoco.mju_mat2Quat(self._quaternion, matrix)
                mujoco.mju_subQuat(error[3:], self._wanted, self._quaternion)
            mujoco.mj_comPos(model, data)
            if self._is_site:
                mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._tool)
            else:
                mujoco.mj_jacBody(model, data, self._jacobian[:3], self._jacobian[3:], self._tool)
            weighted = self._jacobian[:, self._dofs] * self._weights[:, np.newaxis]
            error[3:] = matrix.reshape(3, 3) @ error[3:]
            normal = weighted.T @ weighted
            normal.flat[:: len(q) + 1] += damping * np.trace(normal)
            pull = weighted.T @ (error * self._weights)
            step = np.linalg.solve(normal, pull)
            stuck = ((q <= self.low) & (step < 0)) | ((q >= self.high) & (step > 0))
            if stuck.any():  # the others make up for a joint that stands at its limit
                free = np.flatnonzero(~stuck)
                step = np.zeros_like(step)
                if free.size:
                    step[free] = np.linalg.solve(normal[np.ix_(free, free)], pull[free])
            longest = np.abs(step).max()
            if longest > LONGEST:
                step *= LONGEST / longest
            q = np.clip(q + step, self.low, self.high)
        return best, best_error.copy()
