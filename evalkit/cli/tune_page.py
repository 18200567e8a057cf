"""The page that `evalkit tune --html` writes: a plot of quality against cost, and the table.

One file, no script, nothing loaded from elsewhere. Names come from configuration and
golden sets and are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from evalkit.cli.tune import notes_of

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 20, 50
TICKS = 5
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --grid: #e5e7eb;
  --line: #2563eb; --mark: #c2410c; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --soft: #9ca3af; --grid: #374151;
  --line: #60a5fa; --mark: #fb923c; --paper: #111827; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--grid); } svg .steps { stroke: var(--line); fill: none; stroke-width: 2; }
svg .alone { fill: var(--mark); } svg .chosen { fill: none; stroke: var(--mark); stroke-width: 2; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; } tr.chosen { font-weight: 600; }
"""


def write_page(tuned: Mapping[str, Any], path: Path) -> None:
    """Write the page of one sweep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(tuned), encoding="utf-8")


def render_page(tuned: Mapping[str, Any]) -> str:
    title = f"{tuned['feature']}: {' → '.join(tuned['models'])}"
    lead = f"{tuned['metric']} on {tuned['cases']} cases of {tuned['golden_set']}"
    notes = "".join(f"<p>{escape(note)}</p>" for note in notes_of(tuned))
    plot = render_plot(tuned)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n{plot}\n{notes}\n"
        f'<div class="wide">{_table(tuned)}</div>\n'
        f"<p>Run {escape(tuned['run_id'])}.</p></body></html>\n"
    )


def render_plot(tuned: Mapping[str, Any]) -> str:
    """Quality against cost as SVG: the cascade's steps, and each model alone.

    Against the share of escalated calls where cost is not known, or says nothing.
    """
    costs = [p["cost_usd"] for p in [*tuned["steps"], *tuned["alone"]]]
    if None not in costs and max(costs) > min(costs):
        key, scale, words = "cost_usd", 1000.0, "USD per 1,000 calls"
        alone = [(scale * p[key], p["quality"], p["model"]) for p in tuned["alone"]]
    else:
        key, scale, words = "escalated", 100.0, "% of calls escalated"
        first, last = tuned["alone"][0], tuned["alone"][-1]
        alone = [(x, p["quality"], p["model"]) for x, p in ((0.0, first), (scale, last))]
    steps = [(scale * p[key], p["quality"]) for p in tuned["steps"]]
    axis = _Axes([x for x, *_ in (*steps, *alone)], [y for _, y, *_ in (*steps, *alone)])
    ends = " ".join(axis.at(x, y) for x, y in steps)
    parts = [axis.drawn(words, tuned["metric"]), f'<polyline class="steps" points="{ends}"/>']
    for x, y, model in alone:
        left, top = axis.place(x, y)
        parts.append(f'<circle class="alone" cx="{left:.1f}" cy="{top:.1f}" r="4"/>')
        parts.append(f'<text x="{left + 8:.1f}" y="{top + 4:.1f}">{escape(model[:24])}</text>')
    for row in tuned["thresholds"]:
        if row["threshold"] == tuned["suggested"]:
            left, top = axis.place(scale * row[key], row["quality"])
            parts.append(f'<circle class="chosen" cx="{left:.1f}" cy="{top:.1f}" r="7"/>')
    told = escape(f"{tuned['metric']} against {words}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{told}">{"".join(parts)}</svg>'
    )


class _Axes:
    """Data to pixels; a range without width is given some."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._x, self._y = _range(xs), _range(ys)

    def place(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (low, high) = self._x, self._y
        across = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return across, up

    def at(self, x: float, y: float) -> str:
        return "{:.1f},{:.1f}".format(*self.place(x, y))

    def drawn(self, x_words: str, y_words: str) -> str:
        parts = []
        for n in range(TICKS):
            x, y = (low + (high - low) * n / (TICKS - 1) for low, high in (self._x, self._y))
            left, top = self.place(x, y)
            parts.append(f'<line class="grid" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" '
                         f'y2="{HEIGHT - BOTTOM}"/><line class="grid" x1="{LEFT}" '
                         f'x2="{WIDTH - RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>')  # fmt: skip
            parts.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                         f'{x:.3g}</text><text x="{LEFT - 6}" y="{top + 4:.1f}" '
                         f'text-anchor="end">{y:.3f}</text>')  # fmt: skip
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">'
                     f'{escape(x_words)}</text><text x="{LEFT}" y="{TOP - 6}">'
                     f"{escape(y_words[:60])}</text>")  # fmt: skip
        return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _table(tuned: Mapping[str, Any]) -> str:
    interval = f"{100 * tuned['level']:g} % interval"
    heads = ["escalate_below", tuned["metric"], "against last alone", interval,
             "USD per 1,000", "cost", "ms", "escalated", *tuned["models"]]  # fmt: skip
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    rows = "".join(_row(row, tuned) for row in [*tuned["thresholds"], *tuned["alone"]])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(row: Mapping[str, Any], tuned: Mapping[str, Any]) -> str:
    alone = row["threshold"] is None
    ci, usd, share = row["ci"], row["cost_usd"], row["cost_share"]
    cells = [
        f"{row['model']} alone" if alone else f"{row['threshold']:.2f}",
        f"{row['quality']:.3f}",
        f"{row['delta']:+.3f}",
        "not known" if ci is None else f"{ci[0]:+.3f} to {ci[1]:+.3f}",
        "not known" if usd is None else f"{1000 * usd:.4f}",
        "" if share is None else f"{100 * share:.0f} %",
        f"{row['latency_ms']:.0f}",
        "" if alone else f"{100 * row['escalated']:.0f} %",
        *(f"{100 * row['shares'][name]:.0f} %" for name in tuned["models"]),
    ]
    chosen = ' class="chosen"' if not alone and row["threshold"] == tuned["suggested"] else ""
    return f"<tr{chosen}>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>"
