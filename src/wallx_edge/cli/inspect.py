"""wallx-edge inspect: what a checkpoint is, without running it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wallx_edge import _core
from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.computing import Computing
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.normalizer import Kind
from wallx_edge.policy_config import PolicyConfig, PolicySettings
from wallx_edge.prompts import Tokenizer
from wallx_edge.quantize.writer import data_digest
from wallx_edge.relative import RelativeActions
from wallx_edge.statistics import Source, Statistics, inside, sources
from wallx_edge.train_config import TrainConfig
from wallx_edge.types import DofLayout

_LINES = ("architecture", "checkpoints", "layers", "hidden_size", "heads", "vision", "vocabulary", "asked", "given")
MAX_SETS = 3  # side by side on a terminal
_VECTORS: tuple[tuple[str, Kind], ...] = (("action", "action"), ("state", "propri"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder in the published layout, or one that quantize wrote")
    parser.add_argument("--check", action="store_true", help="compare a quantized folder's weights with their digest")
    add_computing_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Loads, which checks every tensor, and prints."""
    asked = computing(args)
    found = _describe(args.checkpoint, asked)
    if args.check:
        found["check"] = _check(args.checkpoint, found["quantized"])
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    console = Console(highlight=False)
    for key in _LINES:
        console.print(f"{key:14s} {found[key]}", soft_wrap=True)
    for key, value in found["quantized"].items():
        console.print(f"{key:14s} {value}", soft_wrap=True, markup=False)
    if "check" in found:
        console.print(f"{'check':14s} {found['check']}", soft_wrap=True)
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


def _describe(checkpoint: Path, asked: Computing) -> dict[str, Any]:
    engine = asked.load(checkpoint)
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
        **dict(zip(("asked", "given"), asked.lines(engine), strict=True)),
        "computing": asked.report(engine),
        "quantized": _quantized(engine),
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


def _quantized(engine: _core.Engine) -> dict[str, Any]:
    """What a quantized folder's file says of itself; empty for a folder in the published layout."""
    said = engine.metadata
    if not said:
        return {}
    lines = (line.partition("#")[0].strip() for line in said.get("wallx_recipe", "").splitlines())
    return {
        "format": f"{said['wallx_format']} of wallx-edge quantize",
        "recipe": "; ".join(line for line in lines if line),
        **({"smoothing": said["wallx_smoothing"]} if "wallx_smoothing" in said else {}),
        "packed layers": ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(_formats(engine)).items())),
        "source sha256": said.get("wallx_source_sha256", "not said"),
        "data sha256": said.get("wallx_data_sha256", "not said"),
    }


def _formats(engine: _core.Engine) -> Iterator[str]:
    """Format of every packed layer."""
    names = set(engine.tensor_names)
    for name in names:
        layer, _, ending = name.rpartition(".")
        if ending == "panels":
            yield "bf16" if f"{layer}.scale" not in names else "w8" if engine.precision == "w8" else "int8"


def _check(checkpoint: Path, quantized: dict[str, Any]) -> str:
    """Reads the whole file; an error where it is not what was written."""
    if not quantized:
        raise ConfigError(f"{checkpoint} is in the published layout, which has no digest to compare with")
    found = data_digest(checkpoint / "model.safetensors")
    if found != quantized["data sha256"]:
        raise CheckpointError(
            f"{checkpoint}/model.safetensors: damaged: sha256 of its data is {found}, when it was written "
            f"{quantized['data sha256']}; quantize the checkpoint again"
        )
    return "the weights are those that were written"


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
            try:
                n = source.normalizer(kind, key, width)
            except CheckpointError:  # left over from another model: whoever chooses it is told why it does not fit
                continue
            out.setdefault(key, [(float(a), float(a + d)) for a, d in zip(n.minimum, n.delta, strict=True)])
    return out


def _matched(engine: _core.Engine, checkpoint: Path) -> str:
    """What a policy takes when it names none, or why it must name one."""
    try:
        statistics = Statistics.of(engine, checkpoint, None)
    except ConfigError as error:
        return str(error)
    differing = f"; {', '.join(statistics.differing)} has other numbers" if statistics.differing else ""
    return (
        f"{statistics.name} from {statistics.source}, {statistics.num_action_columns} of {statistics.action.width} "
        f"columns of the action, {statistics.num_state_columns} of {statistics.state.width} of the state{differing}"
    )
