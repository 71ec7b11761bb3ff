"""Extras: libraries that only some parts of the package need."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
from typing import Any

from wallx_edge.errors import ConfigError

__all__ = ["require", "without_screen"]


def require(module: str, extra: str, what: str) -> Any:
    """Imports a library, or says how it is installed.

    Args:
        module: to import.
        extra: of this package that brings it.
        what: cannot be done without it, in words.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ConfigError(f"{what} needs {library}: pip install 'wallx-edge[{extra}]'") from error


def without_screen(what: str) -> Any:
    """``matplotlib.pyplot``, drawing to files only.

    Args:
        what: is drawn, in words.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require("matplotlib", "plot", what).use("Agg")
    return importlib.import_module("matplotlib.pyplot")
