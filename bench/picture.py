"""The arena as one SVG file that needs nothing else: a panel a figure, a bar a contender."""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from bench.bars import OURS, Figures
from worker.report.drawing import WIDTH, part, picture, words, write

PANELS = {
    "cancels/s": "cancels a second, everything due",
    "CPU ms/cancel": "CPU of the worker's processes per cancel, ms",
    "burst s": "a burst: the last on the wire, s",
    "p50 ms": "a single cancel to the wire, p50, ms",
}
# Pixels.
PITCH, BAR, LEFT, RIGHT, HEAD = 16.0, 10.0, 142.0, 52.0, 26.0
STYLE = """
svg { background: #fff; font: 11px system-ui, sans-serif; fill: #222 }
.head { font-weight: 600 } .bar { fill: #8a94a6 } .ours { fill: #0b6e4f }
@media (prefers-color-scheme: dark) { svg { background: #16191d; fill: #ddd } .ours { fill: #3fbf8f } }
"""


def draw(found: Mapping[str, Figures], title: str) -> str:
    """`found`: contender → figure → value; what a contender has no value for is left out of that panel."""
    panels = {name: {who: of[name] for who, of in found.items() if of[name] is not None} for name in PANELS}
    height = sum(HEAD + PITCH * len(values) + 8 for values in panels.values())
    root = picture("bench", title, "; ".join(map(_told, panels, panels.values())), height)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    part(root, "style").text = STYLE
    top = 0.0
    for name, values in panels.items():
        words(root, (4.0, top + 16), PANELS[name], css="head")
        for nth, (who, value) in enumerate(values.items()):
            _bar(root, top + HEAD + PITCH * nth, who, float(value or 0), max(v or 0 for v in values.values()))
        top += HEAD + PITCH * len(values) + 8
    return write(root)


def _bar(root: ET.Element, y: float, who: str, value: float, largest: float) -> None:
    width = max(1.0, (WIDTH - LEFT - RIGHT) * value / largest) if largest else 1.0
    words(root, (LEFT - 6, y + 9), who, text_anchor="end", room=LEFT - 8)
    part(root, "rect", x=LEFT, y=y, width=width, height=BAR, css="ours" if who.startswith(OURS) else "bar")
    words(root, (LEFT + width + 5, y + 9), f"{value:,.0f}" if value >= 100 else f"{value:.2f}")


def _told(name: str, values: Mapping[str, float | None]) -> str:
    return f"{PANELS[name]}: " + ", ".join(f"{who} {value:.4g}" for who, value in values.items() if value)
