"""Tables: typed values out of our own configuration files; every error points at file, table, key and value."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wallx_edge.errors import CalibrationError, ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

__all__ = ["Table", "read_toml"]


def read_toml(path: Path, what: str = "") -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: of the file.
        what: what the file is, for messages.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{what}{path} is not TOML: {error}") from error
    return values


@dataclass(frozen=True)
class Table:
    """One table of a configuration file, with what an error message needs to point at it.

    A getter's ``default`` stands in for a key that is not there; without one the key is required.

    Attributes:
        file: the file, for messages.
        where: the table in it: "" at the top, else like "joints[2] (elbow_flex)".
        values: its content.
        error: what is raised.
    """

    file: Path
    where: str
    values: Mapping[str, Any]
    error: type[ConfigError] | type[CalibrationError] = ConfigError

    def fail(self, key: str, what: str) -> ConfigError | CalibrationError:
        """The error to raise for a key."""
        place = f"{self.where}: {key}" if self.where else key
        return self.error(f"{self.file}: {place} {what}")

    def check_keys(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Refuses keys that are not known, and required ones that are missing."""
        known = (*required, *optional)
        for key in self.values:
            if key not in known:
                raise self.fail(repr(key), f"is not a known key; known are {', '.join(known)}")
        for key in required:
            if key not in self.values:
                raise self.fail(repr(key), "is missing")

    def table(self, key: str) -> Table:
        """A table inside this one; an empty one when it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, Mapping):
            raise self.fail(key, f"is {value!r}, must be a table")
        return Table(self.file, f"{self.where}.{key}" if self.where else key, value, self.error)

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty text."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"is {value!r}, must be a non-empty text")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self.text(key, default)
        if value not in choices:
            raise self.fail(key, f"is {value!r}, must be one of {', '.join(choices)}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"is {value!r}, must be a finite number")
        try:
            number = float(value)
        except OverflowError:  # a whole number may have any number of digits
            number = math.inf
        if not math.isfinite(number):
            raise self.fail(key, f"is {value!r:.40}, must be a finite number")
        return number

    def positive(self, key: str, unit: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.number(key, default)
        if value <= 0:
            raise self.fail(key, f"is {value:g} {unit}, must be above 0")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within bounds."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"is {value!r}, must be a whole number")
        if not low <= value <= high:
            raise self.fail(key, f"is {value}, must be {low}..{high}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"is {value!r}, must be true or false")
        return value
