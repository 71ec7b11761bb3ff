"""Recipe: how a checkpoint is quantized; TOML beside this file, or the user's own."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wallx_edge.errors import ConfigError
from wallx_edge.tables import Table, read_toml

__all__ = ["PAIRS", "PRECISIONS", "Recipe", "Smoothing"]

_FOLDER = Path(__file__).parent / "recipes"
PRECISIONS = ("bf16", "int8", "mixed", "w8")
# whose inputs can be smoothed; each names the layers that the scale goes into
PAIRS = ("vision.qkv", "vision.gate_up", "vision.down", "qkv", "gate_up", "down")


@dataclass(frozen=True)
class Smoothing:
    """Scales that move the spread of activations into weights, exactly but for rounding.

    Attributes:
        alpha: how much of an input's largest magnitude goes into its weights, 0 (nothing) to 1 (all).
        layers: kinds of layers, of :data:`PAIRS`.
    """

    alpha: float
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """What ``quantize`` does with a checkpoint.

    Attributes:
        name: of the file.
        text: the file's own.
        precision: of :data:`PRECISIONS`.
        keep_16bit: patterns, as of a shell, of layers that stay bf16 whatever the precision says.
        smoothing: ``None``: none.
    """

    name: str
    text: str
    precision: str
    keep_16bit: tuple[str, ...] = ()
    smoothing: Smoothing | None = None

    @staticmethod
    def names() -> tuple[str, ...]:
        """Of the recipes beside this file."""
        return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))

    @classmethod
    def load(cls, name: str) -> Recipe:
        """Reads a recipe.

        Args:
            name: of :meth:`names`, or the path of a TOML file.

        Raises:
            ConfigError: no such recipe; an unknown key, or an impossible value, which the message names.
        """
        path = Path(name) if name.endswith(".toml") or "/" in name else _FOLDER / f"{name}.toml"
        if not path.is_file():
            raise ConfigError(
                f"recipe {name!r}: there is none; there are {', '.join(cls.names())}, or give the path of a TOML file"
            )
        top = Table(path, "", read_toml(path, "recipe "))
        top.check_keys(("precision",), ("keep_16bit", "smoothing"))
        patterns = top.values.get("keep_16bit", [])
        if not isinstance(patterns, list) or not all(isinstance(p, str) and p for p in patterns):
            raise top.fail("keep_16bit", f"is {patterns!r:.60}, must be a list of patterns of layers' names")
        return cls(
            name=path.stem,
            text=path.read_text(encoding="utf-8"),
            precision=top.choice("precision", PRECISIONS),
            keep_16bit=tuple(patterns),
            smoothing=_smoothing(top) if "smoothing" in top.values else None,
        )


def _smoothing(top: Table) -> Smoothing:
    table = top.table("smoothing")
    table.check_keys(("alpha", "layers"))
    alpha = table.number("alpha")
    if not 0 < alpha <= 1:
        raise table.fail("alpha", f"is {alpha:g}, must be more than 0 and at most 1")
    layers = table.values["layers"]
    if isinstance(layers, Mapping | str) or not isinstance(layers, list) or not layers:
        raise table.fail("layers", f"is {layers!r:.60}, must be a list of {', '.join(PAIRS)}")
    for kind in layers:
        if kind not in PAIRS:
            raise table.fail("layers", f"has {kind!r:.60}, must be of {', '.join(PAIRS)}")
    return Smoothing(alpha, tuple(dict.fromkeys(layers)))
