"""Page: a quality report as JSON, and as a page with plots."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import html
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge.quantize.quality import Quality

__all__ = ["write_report"]

_COLOURS = {"vision": "#4c72b0", "prompt": "#55a868", "actions": "#c44e52"}
_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto;color:#222}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}.note{background:#fff3cd;padding:.6em 1em}"
)


def write_report(quality: Quality, folder: Path, title: str) -> bool:
    """Writes ``report.json``, ``index.html`` and, where matplotlib is installed, the page's plots. Blocks.

    Args:
        quality: what was measured.
        folder: to make, or to write over.
        title: of the page.

    Returns:
        whether there are plots.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(quality.as_json(), indent=1) + "\n", encoding="utf-8")
    plots = _plot(quality, folder) if importlib.util.find_spec("matplotlib") else ()
    (folder / "index.html").write_text(_page(quality, title, plots), encoding="utf-8")
    return bool(plots)


def _page(quality: Quality, title: str, plots: tuple[tuple[str, str], ...]) -> str:
    found = quality.as_json()
    text = html.escape
    given = quality.computing["given"]
    notes = []
    if quality.is_synthetic:
        notes.append("The observations were synthetic: drawn scenes and states, not this robot's. Give your own.")
    if quality.reference != "fp32":
        notes.append(f"The reference is {quality.reference}: this computer's memory does not hold fp32.")
    if not plots:
        notes.append("There are no plots: matplotlib is not installed (pip install 'wallx-edge[plot]').")
    rows = [
        ("cosine of the integrated action, median", f"{found['cosine']['median']:.6f}"),
        ("cosine of the integrated action, worst", f"{found['cosine']['worst']:.6f}"),
        ("jerk over the reference's, median", f"{found['jerk_ratio']['median']:.4f}"),
        ("jerk over the reference's, worst", f"{found['jerk_ratio']['worst']:.4f}"),
        ("next tokens that are the reference's", f"{quality.token_agreement:.1%}"),
    ]
    slots = [
        (name, slot["unit"], f"{slot['rms']:.3g}", f"{slot['largest']:.3g}", f"{slot['range']:.3g}")
        for name, slot in quality.slots.items()
    ]
    layers = [(name, f"{noise:.2e}") for name, noise in quality.layers.items()]
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text(title)}</title>',
            f"<style>{_STYLE}</style><h1>{text(title)}</h1>",
            *(f'<p class="note">{text(note)}</p>' for note in notes),
            f"<p>{text(given['precision'])} against {text(quality.reference)}: {text(given['arithmetic'])}; "
            f"{text(given['kernels'])}. {quality.num_observations} observations, {quality.num_noises} starts of the "
            f"flow each, all steps integrated; statistics {text(quality.statistics)}.</p>",
            _table(("what", "value"), rows),
            *(f'<h2>{text(heading)}</h2><img src="{file}" alt="{text(heading)}">' for file, heading in plots),
            "<h2>Slots, SI</h2>",
            _table(("slot", "unit", "rms difference", "largest", "range of the reference's rows"), slots),
            "<h2>Layers of the first observation</h2>",
            _table(("layer", "|got - reference| / |reference|"), layers),
            "</html>\n",
        ]
    )


def _table(headings: tuple[str, ...], rows: list[Any]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(headings, "th") + "".join(line(tuple(row), "td") for row in rows) + "</table>"


def _plot(quality: Quality, folder: Path) -> tuple[tuple[str, str], ...]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for part, colour in _COLOURS.items():
        for ending, dashes in (("", "-"), (".self_attn", ":"), (".moe", "--"), (".attn", ":")):
            points = _series(quality.layers, part, ending)
            if points:
                label = f"{part}{ending.replace('.self_attn', ', attention').replace('.moe', ', feed-forward')}"
                label = label.replace(".attn", ", attention")
                axes.plot(*zip(*points, strict=True), dashes, marker="o", color=colour, label=label, markersize=4)
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("|got - reference| / |reference|")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(folder / "layers.png", dpi=110)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    distance = 1 - np.array(quality.cosine).reshape(quality.num_observations, quality.num_noises)
    for number, each in enumerate(distance):
        axes.plot([number] * len(each), np.maximum(each, 1e-8), "o", color="#4c72b0")
    for bound, colour in ((5e-4, "#55a868"), (1e-3, "#dd8452"), (5e-3, "#c44e52")):
        axes.axhline(bound, color=colour, linewidth=1, label=f"cosine {1 - bound:g}")
    axes.set_yscale("log")
    axes.set_xticks(range(quality.num_observations))
    axes.set_xlabel("observation")
    axes.set_ylabel("1 - cosine")
    figure.legend(fontsize=8, loc="outside right upper")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "cosine.png", dpi=110)

    figure = Figure(figsize=(9, 1.2 + 0.28 * len(quality.slots)), layout="constrained")
    axes = figure.add_subplot()
    names = list(quality.slots)
    shares = [quality.slots[name]["rms"] / max(quality.slots[name]["range"], 1e-12) for name in names]
    axes.barh(names, shares, color="#4c72b0")
    axes.invert_yaxis()
    axes.set_xlabel("rms difference / range of the reference's rows")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(folder / "slots.png", dpi=110)

    expected, got = quality.example
    moving = np.argsort(-np.ptp(expected, axis=0))[:6]
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, column in zip(np.ravel(figure.subplots(2, 3, sharex=True, squeeze=False)), moving, strict=False):
        axes.plot(expected[:, column], color="#222222", label=quality.reference)
        axes.plot(got[:, column], "--", color="#c44e52", label=str(quality.computing["given"]["precision"]))
        axes.set_title(quality.columns[column], fontsize=8)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(fontsize=8)
    figure.supxlabel("row", fontsize=9)
    figure.savefig(folder / "rows.png", dpi=110)
    return (
        ("cosine.png", "Integrated action, each observation and start of the flow"),
        ("layers.png", "Noise of each layer"),
        ("slots.png", "Difference of each slot"),
        ("rows.png", "Rows of the worst chunk, SI"),
    )


def _series(layers: dict[str, float], part: str, ending: str) -> list[tuple[int, float]]:
    pattern = r"prompt: vision\.blocks\.(\d+)" if part == "vision" else rf"{part}: layers\.(\d+)"
    found = ((re.fullmatch(pattern + re.escape(ending), name), noise) for name, noise in layers.items())
    return [(int(match[1]), noise) for match, noise in found if match]
