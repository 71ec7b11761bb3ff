"""Page: an evaluation as JSON, and as a page with plots and videos."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wallx_edge.evaluate.campaign import Summary
from wallx_edge.evaluate.episode import Outcome
from wallx_edge.extras import without_screen

__all__ = ["write_page"]

_STYLE = (
    "body{font:15px sans-serif;max-width:64em;margin:2em auto;color:#222}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}td:first-child,td:nth-child(2){text-align:left}"
    "img,video{max-width:100%}video{width:31em;margin:.3em}"
)


def write_page(folder: Path, report: dict[str, Any], summaries: Sequence[Summary], outcomes: Sequence[Outcome]) -> None:
    """Writes ``report.json``, ``index.html`` and ``outcomes.png``; videos that lie in the folder are shown. Blocks.

    Args:
        folder: that exists.
        report: all of it.
        summaries: by task and variant.
        outcomes: of every episode.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _plot(folder / "outcomes.png", summaries, outcomes)
    text = html.escape
    heads = (
        "task",
        "variant",
        "success",
        "95 %",
        "progress",
        "time [s]",
        "jerk [rad/s³]",
        "seam [rad]",
        "limited",
        "errors",
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{text(cell)}</td>"
            for cell in (
                s.task,
                s.variant,
                f"{s.successes} of {s.episodes}",
                f"{s.low:.0%} to {s.high:.0%}",
                f"{s.progress:.2f}",
                f"{s.time:.1f}",
                f"{s.jerk:.0f}",
                f"{s.seam:.4f}",
                f"{s.limited:.1%}",
                str(s.errors),
            )
        )
        + "</tr>"
        for s in summaries
    )
    videos = "".join(
        f'<video controls muted src="{text(path.name)}" title="{text(path.stem)}"></video>'
        for path in sorted(folder.glob("*.mp4"))
    )
    title = f"wallx-edge eval: {report['policy']}"
    (folder / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>{text(title)}</title><style>{_STYLE}</style>'
        f"<h1>{text(title)}</h1><p>Paired seeds from {report['seed']}; lock-step; Wilson intervals.</p>"
        f"<table><tr>{''.join(f'<th>{text(h)}</th>' for h in heads)}</tr>{rows}</table>"
        f'<p><img src="outcomes.png" alt="success, time and jerk"></p>{videos}\n',
        encoding="utf-8",
    )


def _plot(path: Path, summaries: Sequence[Summary], outcomes: Sequence[Outcome]) -> None:
    pyplot = without_screen("the page's plot")
    names = [f"{s.task}\n{s.variant}" for s in summaries]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 1.4 + 0.45 * len(names)), sharey=True)
    places = range(len(names))
    rates = [s.success for s in summaries]
    spans = [[s.success - s.low for s in summaries], [s.high - s.success for s in summaries]]
    axes[0].barh(places, rates, xerr=spans, color="tab:blue", capsize=3)
    axes[0].set_xlim(0, 1.05)
    axes[0].set_title("success, 95 %")
    groups = [[o for o in outcomes if (o.task, o.variant) == (s.task, s.variant)] for s in summaries]
    for place, group in enumerate(groups):
        for axis, values in ((axes[1], [o.time for o in group if o.is_success]), (axes[2], [o.jerk for o in group])):
            axis.plot(values, [place] * len(values), "|", color="tab:blue", markersize=14, alpha=0.5)
            if values:
                axis.plot(statistics.median(values), place, "o", color="tab:orange")
    axes[1].set_title("time to success [s], median")
    axes[2].set_title("jerk of the commands [rad/s³], median")
    axes[2].set_xscale("log")
    axes[0].set_yticks(list(places), names)
    axes[0].invert_yaxis()
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
