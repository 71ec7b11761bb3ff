"""wallx-edge inspect: what a checkpoint is, without running it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wallx_edge._core import Engine
from wallx_edge.normalizer import Normalizer
from wallx_edge.prompts import Tokenizer
from wallx_edge.types import DofLayout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder in the published layout")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Loads, which checks every tensor, and prints."""
    found = _describe(args.checkpoint)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    console = Console(highlight=False)
    for key in ("architecture", "layers", "hidden_size", "heads", "vision", "vocabulary", "weights"):
        console.print(f"{key:14s} {found[key]}", soft_wrap=True)
    for key in ("action", "state"):
        table = Table(title=f"{key} vector", title_justify="left")
        for heading in ("slot", "columns", "unit", *found["statistics"][key]):
            # a name is never cut, whatever the terminal's width
            table.add_column(heading, no_wrap=heading == "slot", overflow="fold")
        for slot in found[key]:
            ranges = [
                ", ".join(f"{low:.4g} to {high:.4g}" for low, high in column[slot["start"] :][: slot["width"]])
                for column in found["statistics"][key].values()
            ]
            units = " ".join(dict.fromkeys(u or "?" for u in slot["units"]))
            table.add_row(slot["name"], f"{slot['start']}..{slot['start'] + slot['width'] - 1}", units, *ranges)
        console.print(table)
    if found["unknown_keys"]:
        console.print(f"config.json has keys unknown to this version: {', '.join(found['unknown_keys'])}")
    return 0


def _describe(checkpoint: Path) -> dict[str, Any]:
    engine = Engine.load(str(checkpoint))
    config = engine.config
    tokenizer = Tokenizer.load(checkpoint)
    names = [n for n in engine.tensor_names if n.startswith("action_preprocessor.normalizer_")]
    tensors = {name: engine.tensor(name) for name in names}
    statistics: dict[str, dict[str, list[tuple[float, float]]]] = {"action": {}, "state": {}}
    for label, kind, width in (
        ("action", "action", config.action_dim),
        ("state", "propri", config.state_dim),
    ):
        for key in Normalizer.keys(tensors, kind):  # type: ignore[arg-type]
            n = Normalizer.from_statistics(tensors, kind, key, width)  # type: ignore[arg-type]
            statistics[label][key] = [(float(a), float(a + d)) for a, d in zip(n.minimum, n.delta, strict=True)]

    def slots(dof: list[tuple[str, int]]) -> list[dict[str, Any]]:
        layout = DofLayout.from_config(dict(dof))
        return [{"name": s.name, "start": s.start, "width": s.width, "units": s.units} for s in layout]

    vision = config.vision
    return {
        "architecture": f"{config.architecture} (wall-oss-flow, wall-oss-fast)",
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": f"{config.num_heads} query, {config.num_kv_heads} key/value, {config.head_dim} wide",
        "vision": f"{vision.depth} blocks, {vision.hidden_size} wide, {vision.num_heads} heads",
        "vocabulary": f"{engine.vocab_size} rows, {tokenizer.num_tokens} tokens",
        "weights": f"{engine.mapped_bytes / 1e6:.1f} MB mapped, {engine.widened_bytes / 1e6:.1f} MB widened to fp32",
        "action": slots(config.dof),
        "state": slots(config.agent_pos),
        "statistics": statistics,
        "unknown_keys": config.unknown_keys,
    }
