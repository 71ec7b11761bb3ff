"""Binding: how a model, a robot and its cameras were matched, or why they do not fit."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.table import Table

from wallx_edge.action_map import ActionMap
from wallx_edge.cameras import Camera
from wallx_edge.embodiment import JointMode
from wallx_edge.errors import ConfigError
from wallx_edge.session.parts import ActingPolicy, DrivenRobot
from wallx_edge.session_config import SessionConfig

__all__ = ["Binding", "BindingRow"]


class BindingRow(NamedTuple):
    """One thing that had to fit."""

    part: str
    model: str
    robot: str


@dataclass(frozen=True)
class Binding:
    """The table of what was matched with what.

    Attributes:
        rows: cameras, statistics, joints with units and widths, times, execution.
        map: between the model's slots and the robot's joints.
    """

    rows: tuple[BindingRow, ...]
    map: ActionMap

    @classmethod
    def of(
        cls, policy: ActingPolicy, robot: DrivenRobot, cameras: Mapping[str, Camera], config: SessionConfig
    ) -> Binding:
        """Matches them. Moves nothing, computes nothing.

        Raises:
            ConfigError: a camera, slot, unit, width or time that does not fit, or rows to play that the horizon does
                not have; names both sides.
        """
        settings = policy.config
        rows: list[BindingRow] = []
        for role in settings.cameras:
            if role not in cameras:
                raise ConfigError(
                    f"the policy looks at the camera {role!r}, which the robot does not have; it has "
                    f"{', '.join(cameras) or 'none'}: add a [[camera]] with this role to the robot's file"
                )
            rows.append(BindingRow("camera", role, cameras[role].name))
        unused = [role for role in cameras if role not in settings.cameras]
        rows += [BindingRow("camera", "not looked at", role) for role in unused]
        for role in config.camera_delay:
            if role not in settings.cameras:
                raise ConfigError(f"session.camera_delay.{role}: the policy does not look at such a camera")
        rows.append(BindingRow("statistics", policy.statistics, policy.statistics_source))

        action_map = ActionMap(policy.action_layout, policy.state_layout, robot.embodiment, robot.model)
        for joint in robot.embodiment.joints:
            # a slot that is a joint has width 1 [rad]; a wheel's is its speed
            is_wheel = joint.mode == JointMode.velocity
            unit = "rad/s" if is_wheel else "rad"
            limits = joint.limits
            bounds = (
                f"at most {limits.max_velocity:.2f} rad/s"
                if is_wheel
                else f"{limits.min_position:+.2f} .. {limits.max_position:+.2f} rad"
            )
            said = f"{joint.name} [{unit}]" if joint.name in policy.action_layout.names else "by kinematics"
            rows.append(BindingRow("joint", said, f"{joint.name}, id {joint.id}, {bounds}"))
        for arm in robot.model.arms if robot.model else ():
            base, tool = f"{arm.side} arm", ", ".join(arm.kinematics.joints)
            rows.append(BindingRow("arm", base, f"{tool}; {'gripper ' + arm.gripper if arm.gripper else 'no gripper'}"))
        width = len(robot.embodiment.joints)
        rows.append(BindingRow("width", f"action {policy.action_layout.width}", f"{width} joints"))
        rows.append(BindingRow("width", f"state {policy.state_layout.width}", f"{width} joints"))

        period = robot.loop.period_s
        if settings.step < 2 * period:
            raise ConfigError(
                f"rows are {settings.step * 1e3:.3g} ms apart, the control loop's period is {period * 1e3:.3g} ms; at "
                "least two periods must fit: raise control.rate_hz or policy.step"
            )
        rows.append(BindingRow("step", f"{settings.step * 1e3:.4g} ms", f"loop of {1 / period:.4g} Hz"))
        if config.execute_rows is not None and config.execute_rows > settings.horizon:
            raise ConfigError(f"execute_rows is {config.execute_rows}, expected 1 to the horizon {settings.horizon}")
        if config.mode in ("rtc", "ensemble") and settings.horizon < 4:
            raise ConfigError(f"mode {config.mode} needs a horizon of 4 rows or more, this one is {settings.horizon}")
        played = config.execute_rows or max(1, settings.horizon // 2)
        rows.append(BindingRow("execution", f"horizon {settings.horizon}", f"{config.mode}, {played} rows a chunk"))
        rows.append(BindingRow("reasoning", config.reason, "" if config.reason == "off" else "from the same weights"))
        return cls(tuple(rows), action_map)

    def table(self) -> Table:
        """For people."""
        table = Table(title="model and robot", title_justify="left")
        for heading in ("part", "model", "robot"):
            table.add_column(heading, overflow="fold")
        for row in self.rows:
            table.add_row(*(text.replace("[", "\\[") for text in row))
        return table

    def as_json(self) -> list[dict[str, Any]]:
        """For programs."""
        return [row._asdict() for row in self.rows]
