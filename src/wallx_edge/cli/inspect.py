"""wallx-edge inspect: what a checkpoint is, without running it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.normalizer import Kind
from wallx_edge.policy_config import PolicyConfig, PolicySettings
from wallx_edge.prompts import Tokenizer
from wallx_edge.relative import RelativeActions
from wallx_edge.statistics import Source, Statistics, inside, sources
from wallx_edge.train_config import TrainConfig, load_engine
from wallx_edge.types import DofLayout

_LINES = ("architecture", "checkpoints", "layers", "hidden_size", "heads", "vision", "vocabulary", "weights")
MAX_SETS = 3  # side by side on a terminal
_VECTORS: tuple[tuple[str, Kind], ...] = (("action", "action"), ("state", "propri"))


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
    for key in _LINES:
        console.print(f"{key:14s} {found[key]}", soft_wrap=True)
    for key, value in found["settings"].items():
        console.print(f"{key:14s} {value}", soft_wrap=True)
    for key, _ in _VECTORS:
        _print_vector(console, key, found)
    console.print(f"{'statistics':14s} {found['matched']}", soft_wrap=True)
    for file, keys in (("config.json", "unknown_keys"), ("config.yml", "ignored_keys")):
        if found[keys]:
            what = "unknown to this version" if keys == "unknown_keys" else "without effect here"
            console.print(f"{file} has keys {what}: {', '.join(found[keys])}", soft_wrap=True)
    if found["open_choices"]:
        console.print(f"left open by the reference, see docs/variants.md: {found['open_choices']}", soft_wrap=True)
    return 0


def _print_vector(console: Console, key: str, found: dict[str, Any]) -> None:
    table = Table(title=f"{key} vector", title_justify="left")
    sets = dict(list(found["statistics"][key].items())[:MAX_SETS])
    for heading in ("slot", "columns", "unit", *sets):
        # a name is never cut, whatever the terminal's width
        table.add_column(heading, no_wrap=heading == "slot", overflow="fold")
    for slot in found[key]:
        ranges = [
            ", ".join(f"{low:.4g} to {high:.4g}" for low, high in column[slot["start"] :][: slot["width"]])
            for column in sets.values()
        ]
        units = " ".join(dict.fromkeys(u or "?" for u in slot["units"]))
        table.add_row(slot["name"], f"{slot['start']}..{slot['start'] + slot['width'] - 1}", units, *ranges)
    console.print(table)
    more = list(found["statistics"][key])[MAX_SETS:]
    if more:
        console.print(f"and statistics for {', '.join(more)}: see --json", soft_wrap=True)


def _describe(checkpoint: Path) -> dict[str, Any]:
    engine = load_engine(checkpoint)
    config = engine.config
    variant = next(v for v in _core.variants() if v.name == config.architecture)
    train = TrainConfig.load(checkpoint)
    tokenizer = Tokenizer.load(checkpoint)
    settings = PolicySettings.resolve(PolicyConfig(), train, config)
    found = sources(checkpoint, inside(engine))
    statistics = {label: _ranges(found, kind, engine) for label, kind in _VECTORS}
    vision = config.vision
    return {
        "architecture": variant.name,
        "checkpoints": variant.checkpoints or "none is published",
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": f"{config.num_heads} query, {config.num_kv_heads} key/value, {config.head_dim} wide",
        "vision": f"{vision.depth} blocks, {vision.hidden_size} wide, {vision.num_heads} heads",
        "vocabulary": f"{engine.vocab_size} rows, {tokenizer.num_tokens} tokens",
        "weights": f"{engine.mapped_bytes / 1e6:.1f} MB mapped, {engine.widened_bytes / 1e6:.1f} MB widened to fp32",
        "settings": {
            "cameras": ", ".join(f"{role} ({settings.style.label(role)})" for role in settings.cameras),
            "resolution": ", ".join(f"{role} {side} px" for role, side in settings.resolution.items()),
            "chunk": f"{settings.horizon} rows of {config.action_dim}",
            "told state": f"text, {settings.state_bins} bins" if config.is_state_text else "one token",
            "attention": f"{settings.attention} among action tokens",
            "flow": f"{settings.num_steps} Euler steps to t = {settings.time_scale:.6g}",
            "relative": ", ".join(_relative(config)) or "no slot",
        },
        "action": _slots(config.dof),
        "state": _slots(config.agent_pos),
        "statistics": statistics,
        "matched": _matched(engine, checkpoint),
        "open_choices": variant.open_choices,
        "config_yml": train.as_json(),
        "unknown_keys": config.unknown_keys,
        "ignored_keys": list(train.ignored),
    }


def _slots(dof: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [
        {"name": s.name, "start": s.start, "width": s.width, "units": s.units} for s in DofLayout.from_config(dict(dof))
    ]


def _relative(config: _core.ModelConfig) -> tuple[str, ...]:
    return RelativeActions(DofLayout.from_config(dict(config.dof)), DofLayout.from_config(dict(config.agent_pos))).slots


def _ranges(found: tuple[Source, ...], kind: Kind, engine: _core.Engine) -> dict[str, list[tuple[float, float]]]:
    """From the value that becomes -1 to that which becomes 1, per column, per set; the first of a name counts."""
    width = engine.config.action_dim if kind == "action" else engine.config.state_dim
    out: dict[str, list[tuple[float, float]]] = {}
    for source in found:
        for key in source.keys:
            n = source.normalizer(kind, key, width)
            out.setdefault(key, [(float(a), float(a + d)) for a, d in zip(n.minimum, n.delta, strict=True)])
    return out


def _matched(engine: _core.Engine, checkpoint: Path) -> str:
    """What a policy takes when it names none, or why it must name one."""
    try:
        statistics = Statistics.of(engine, checkpoint, None)
    except ConfigError as error:
        return str(error)
    return (
        f"{statistics.name} from {statistics.source}, {statistics.num_action_columns} of {statistics.action.width} "
        f"columns of the action, {statistics.num_state_columns} of {statistics.state.width} of the state"
    )
