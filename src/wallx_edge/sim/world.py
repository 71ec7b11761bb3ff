"""World: an arm on a table with things and cameras, in MuJoCo; the plant of emulated servos, and what cameras see."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge._emulator import WorldPlant, draw_picture
from wallx_edge.cameras import Camera, Frame
from wallx_edge.errors import ConfigError
from wallx_edge.extras import require

__all__ = ["CAMERAS", "CameraSpec", "Thing", "World", "WorldCamera", "WorldSpec"]

Shape = Literal["box", "cylinder", "sphere", "plate", "bin", "cup", "bar"]
TIMESTEP = 0.002  # [s]
DENSITY = 350.0  # of a thing that can be moved: light wood [kg/m^3]
PLATE_HEIGHT = 0.004  # [m]
BIN_WALL, BIN_HEIGHT = 0.004, 0.035  # [m]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """Something on the table.

    Attributes:
        name: one of its own.
        shape: box and bar: half edges; cylinder and cup: radius, half height; sphere: radius; plate: radius; bin:
            half edges of its floor. Plates and bins are fixed.
        size: [m]
        colour: RGB 0..1.
        position: of its foot's middle on the table [m].
        yaw: about the vertical [rad].
    """

    name: str
    shape: Shape
    size: tuple[float, ...]
    colour: tuple[float, float, float]
    position: tuple[float, float]
    yaw: float = 0.0

    @property
    def is_fixed(self) -> bool:
        """Whether it stays where it is."""
        return self.shape in ("plate", "bin")

    @property
    def half_height(self) -> float:
        """[m]"""
        if self.shape in ("box", "bar"):
            return self.size[2]
        if self.shape in ("cylinder", "cup"):
            return self.size[1]
        return {"sphere": self.size[0], "plate": PLATE_HEIGHT / 2, "bin": BIN_HEIGHT / 2}[self.shape]


@dataclass(frozen=True)
class CameraSpec:
    """A camera that looks from one point at another; without a target it is the arm's own of that name.

    Attributes:
        role: as the policy calls it.
        position: [m]
        target: [m]
        fovy: vertical field of view [rad].
        width: [pixels]
        height: [pixels]
        body_camera: name of a camera in the arm's own model.
    """

    role: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fovy: float = math.radians(50)
    width: int = 224
    height: int = 224
    body_camera: str = ""


CAMERAS = (
    CameraSpec("face_view", (0.50, 0.0, 0.62), (0.21, 0.0, 0.0)),
    CameraSpec("wrist_view", body_camera="wrist", fovy=math.radians(70)),
)


@dataclass(frozen=True)
class WorldSpec:
    """Everything that a world begins with.

    Attributes:
        things: on the table.
        cameras: by role.
        pose: joint -> where the arm stands at first [rad]; joints that are not named stand at zero.
    """

    things: tuple[Thing, ...] = ()
    cameras: tuple[CameraSpec, ...] = CAMERAS
    pose: Mapping[str, float] | None = None

    def write(self, path: Path) -> None:
        """Writes it as JSON, which :meth:`read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> WorldSpec:
        """Reads what :meth:`write` wrote.

        Raises:
            ConfigError: no such file, no JSON, or not the fields of a world.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            things = tuple(Thing(**{**t, "size": tuple(map(float, t["size"])), **_pairs(t)}) for t in values["things"])
            cameras = tuple(
                CameraSpec(**{**c, "position": tuple(c["position"]), "target": tuple(c["target"])})
                for c in values["cameras"]
            )
            pose = values["pose"]
            spec = cls(things, cameras, None if pose is None else {str(k): float(v) for k, v in pose.items()})
            for thing in things:
                if thing.shape not in _SIZES or len(thing.size) != _SIZES[thing.shape] or min(thing.size) <= 0:
                    raise ValueError(f"{thing.name}: a {thing.shape} of size {thing.size}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{path} is no world: {error}") from error
        return spec


# numbers in a thing's size
_SIZES = {"box": 3, "bar": 3, "cylinder": 2, "cup": 2, "sphere": 1, "plate": 1, "bin": 2}


def _pairs(thing: Mapping[str, Any]) -> dict[str, Any]:
    red, green, blue = (float(v) for v in thing["colour"])
    x, y = (float(v) for v in thing["position"])
    return {"colour": (red, green, blue), "position": (x, y)}


class World:
    """Physics and pictures of one scene. One thread at a time uses it.

    Attributes:
        spec: what it was made from.
        model: MuJoCo's.
        data: MuJoCo's; the emulated servos step it.
        joint_names: of the arm, in the servos' order.
    """

    def __init__(
        self,
        spec: WorldSpec,
        arm_model: Path,
        joint_names: Sequence[str],
        dynamics: Mapping[str, tuple[float, float, float]],
        tool: str = "tool",
    ) -> None:
        """Builds the scene and lets nothing move yet.

        Args:
            spec: the scene.
            arm_model: MJCF file of the arm.
            joint_names: the servos' joints, in order.
            dynamics: joint -> rotor inertia [kg m^2], damping [N m s/rad], friction [N m].
            tool: site between the fingers.

        Raises:
            ConfigError: MuJoCo is not installed, or arm and things make no model.
        """
        mujoco = self._mujoco = require("mujoco", "sim", "a simulated world")
        self.spec = spec
        self.joint_names = tuple(joint_names)
        text = _mjcf(spec, arm_model, self.joint_names, dynamics, tool)
        try:
            self.model = mujoco.MjModel.from_xml_string(text)
        except ValueError as error:
            raise ConfigError(f"{arm_model} and the things on its table make no model: {error}") from error
        self.data = mujoco.MjData(self.model)
        model = self.model
        self._tool = model.site(tool).id
        self._qpos = np.array([model.joint(name).qposadr[0] for name in self.joint_names])
        self._dofs = np.array([model.joint(name).dofadr[0] for name in self.joint_names])
        self._bodies = {thing.name: model.body(thing.name).id for thing in spec.things}
        seen = np.array([g for g in range(model.ngeom) if model.geom_group[g] != 3])
        self._seen = seen
        self._kinds = model.geom_type[seen].astype(np.int32)
        self._sizes = model.geom_size[seen].astype(np.float64)
        self._colours = model.geom_rgba[seen].astype(np.float32)
        names = [model.geom(int(g)).name for g in seen]
        self._patterns = np.array([2 if n == "table_top" else 1 if n == "floor" else 0 for n in names], np.int32)
        for name, value in (spec.pose or {}).items():
            if name not in self.joint_names:
                raise ConfigError(f"the world's pose names a joint {name}; the arm has {', '.join(self.joint_names)}")
            self.data.qpos[model.joint(name).qposadr[0]] = value
        mujoco.mj_forward(model, self.data)

    # physics

    def plant(self, middle_ticks: Mapping[str, float]) -> WorldPlant:
        """What emulated servos step; it keeps this world alive.

        Args:
            middle_ticks: joint -> reported position at the joint's zero [ticks].
        """
        plant = WorldPlant(
            step=_address("mj_step"),
            model=self.model._address,
            data=self.data._address,
            timestep=float(self.model.opt.timestep),
            positions=self.data.qpos.ctypes.data,
            velocities=self.data.qvel.ctypes.data,
            forces=self.data.qfrc_applied.ctypes.data,
            state_size=self.model.nq,
            joints=[
                (int(q), int(v), float(middle_ticks[name]))
                for name, q, v in zip(self.joint_names, self._qpos, self._dofs, strict=True)
            ],
        )
        plant.owner = self
        return plant

    @property
    def state(self) -> Floats:
        """Positions of everything: what pictures and poses follow from, a copy   (nq)"""
        return np.array(self.data.qpos)

    def show(self, state: Floats) -> None:
        """Puts everything where another copy of this world has it; velocities are not touched.

        Args:
            state: :attr:`state` of that one   (nq)
        """
        self.data.qpos[:] = state
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

    @property
    def arm_pose(self) -> Floats:
        """Joint positions [rad]   (joints,)"""
        return np.array(self.data.qpos[self._qpos])

    def pose(self, name: str) -> tuple[Floats, float]:
        """Where a thing is: its middle [m] (3,), and its turn about the vertical [rad].

        Raises:
            ConfigError: no such thing.
        """
        if name not in self._bodies:
            raise ConfigError(f"no thing {name!r} on the table; there are {', '.join(self._bodies) or 'none'}")
        body = self._bodies[name]
        axes = self.data.xmat[body].reshape(3, 3)
        return np.array(self.data.xpos[body]), math.atan2(axes[1, 0], axes[0, 0])

    def is_upright(self, name: str) -> bool:
        """Whether a thing stands as it was put."""
        return bool(self.data.xmat[self._bodies[name]].reshape(3, 3)[2, 2] > 0.9)

    @property
    def tool(self) -> Floats:
        """Between the finger pads [m]   (3,)"""
        return np.array(self.data.site_xpos[self._tool])

    # pictures

    def picture(self, camera: CameraSpec, samples: int = 1) -> NDArray[np.uint8]:
        """What a camera sees now: RGB   (height, width, 3). Does not hold the interpreter's lock while it draws."""
        if camera.body_camera:
            index = self.model.camera(camera.body_camera).id
            eye, axes = self.data.cam_xpos[index], self.data.cam_xmat[index]
        else:
            eye, axes = np.array(camera.position), _looking(camera.position, camera.target).ravel()
        return draw_picture(
            kinds=self._kinds,
            sizes=self._sizes,
            positions=self.data.geom_xpos[self._seen],
            rotations=self.data.geom_xmat[self._seen],
            colours=self._colours,
            patterns=self._patterns,
            eye=eye,
            axes=axes,
            fovy=camera.fovy,
            width=camera.width,
            height=camera.height,
            samples=samples,
        )


class WorldCamera(Camera):
    """Sees a world as it is when it is read, where the world's own thread reads it."""

    def __init__(self, world: World, spec: CameraSpec, clock: Callable[[], float]) -> None:
        """Sees nothing yet.

        Args:
            world: what it looks at.
            spec: from where.
            clock: the world's time [s].
        """
        self.name = spec.role
        self._world = world
        self._spec = spec
        self._clock = clock

    def read(self) -> Frame:
        """The picture now."""
        return Frame(self._world.picture(self._spec), self._clock())

    def close(self) -> None:
        """Nothing to let go of."""


def _looking(position: Sequence[float], target: Sequence[float]) -> Floats:
    """A camera's axes as columns: right, up, back."""
    back = np.subtract(position, target).astype(np.float64)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    # straight down: the top of the picture is away from the arm
    right = np.array([0.0, -1.0, 0.0]) if np.linalg.norm(right) < 1e-6 else right / np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


def _address(function: str) -> int:
    """Of a function in the MuJoCo library that this process has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if "libmujoco.so" in path:
            address = ctypes.cast(getattr(ctypes.CDLL(path), function), ctypes.c_void_p).value
            assert address is not None
            return address
    raise ConfigError("MuJoCo is imported, but its library libmujoco.so is not loaded; reinstall wallx-edge[sim]")


def _numbers(*values: float) -> str:
    return " ".join(repr(float(value)) for value in values)


def _mjcf(
    spec: WorldSpec,
    arm_model: Path,
    joint_names: Sequence[str],
    dynamics: Mapping[str, tuple[float, float, float]],
    tool: str,
) -> str:
    """The arm's model with the scene around it."""
    try:
        root = ElementTree.parse(arm_model).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(f"cannot read the arm's model {arm_model}: {error}") from error
    worldbody = root.find("worldbody")
    joints = {joint.get("name"): joint for joint in root.iter("joint")}
    missing = [name for name in joint_names if name not in joints]
    if worldbody is None or missing:
        raise ConfigError(
            f"{arm_model} has no {'worldbody' if worldbody is None else 'joint ' + missing[0]}; "
            f"an arm's model has the joints {', '.join(joint_names)}"
        )
    if not any(site.get("name") == tool for site in root.iter("site")):
        raise ConfigError(f"{arm_model} has no site {tool}; it says where the fingers grip")
    for name, (inertia, damping, friction) in dynamics.items():
        for key, value in (("armature", inertia), ("damping", damping), ("frictionloss", friction)):
            joints[name].set(key, _numbers(value))
    ElementTree.SubElement(
        root,
        "option",
        timestep=_numbers(TIMESTEP),
        integrator="implicitfast",
        cone="elliptic",
        impratio="10",
    )
    add = ElementTree.SubElement
    add(worldbody, "geom", name="floor", type="plane", size="0 0 1", pos="0 0 -0.5", rgba="0.72 0.72 0.70 1")
    add(
        worldbody,
        "geom",
        name="table_top",
        type="box",
        size="0.32 0.40 0.02",
        pos="0.18 0 -0.02",
        rgba="0.78 0.64 0.47 1",
        friction="0.8 0.01 0.0002",
    )
    for thing in spec.things:
        _add_thing(worldbody, thing)
    return ElementTree.tostring(root, encoding="unicode")


def _add_thing(worldbody: ElementTree.Element, thing: Thing) -> None:
    x, y = thing.position
    body = ElementTree.SubElement(
        worldbody,
        "body",
        name=thing.name,
        pos=_numbers(x, y, thing.half_height + (0.0 if thing.is_fixed else 0.0005)),
        quat=_numbers(math.cos(thing.yaw / 2), 0, 0, math.sin(thing.yaw / 2)),
    )

    def add(kind: str, size: Sequence[float], colour: Sequence[float], at: Sequence[float] = (0, 0, 0)) -> None:
        attributes = {"type": kind, "size": _numbers(*size), "rgba": _numbers(*colour, 1), "pos": _numbers(*at)}
        if not thing.is_fixed:
            attributes |= {"friction": "1.0 0.02 0.0005", "condim": "4", "solref": "0.008 1"}
        ElementTree.SubElement(body, "geom", attributes | touch)

    touch = {} if thing.is_fixed else {"density": _numbers(DENSITY)}
    only_seen = {"contype": "0", "conaffinity": "0", "mass": "0"}
    if thing.shape == "plate":
        add("cylinder", (thing.size[0], PLATE_HEIGHT / 2), thing.colour)
        touch = only_seen
        bright = [0.25 + 0.75 * c for c in thing.colour]
        add("cylinder", (0.72 * thing.size[0], PLATE_HEIGHT / 2), bright, (0, 0, 0.0006))
        return
    if thing.shape == "bin":
        a, b = thing.size[:2]
        half, wall = BIN_HEIGHT / 2, BIN_WALL / 2
        add("box", (a, b, wall), thing.colour, (0, 0, wall - half))
        for side in (-1, 1):
            add("box", (wall, b, half), thing.colour, (side * a, 0, 0))
            add("box", (a, wall, half), thing.colour, (0, side * b, 0))
        return
    ElementTree.SubElement(body, "freejoint")
    kind = {"box": "box", "bar": "box", "cylinder": "cylinder", "cup": "cylinder", "sphere": "sphere"}[thing.shape]
    add(kind, thing.size, thing.colour)
    if thing.shape == "cup":  # a dark inside, so that it does not look like a block
        touch = only_seen
        add("cylinder", (0.8 * thing.size[0], 0.001), [0.55 * c for c in thing.colour], (0, 0, thing.size[1]))
