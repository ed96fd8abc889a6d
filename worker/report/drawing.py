"""SVG by hand: elements, text, marks and scales. Pure; escaping is the XML writer's work, never ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree import ElementTree as ET

from worker.report.shown import brief, printable

# Every picture is drawn for a phone's width; a wider page scales it up.
WIDTH = 420.0
# A narrow guess at a character's width at 11 px: what is cut here would have run out of the picture.
CHARACTER = 6.2


def part(parent: ET.Element, tag: str, **attributes: object) -> ET.Element:
    """Add an element; `css` is its class, an underscore in a name is a hyphen, a float has one decimal."""
    return ET.SubElement(parent, tag, _plain(attributes))


def picture(name: str, title: str, description: str, height: float) -> ET.Element:
    """An empty picture that a screen reader can tell; `name` must be unique on the page."""
    root = ET.Element(
        "svg",
        _plain(
            {
                "viewBox": f"0 0 {number(WIDTH)} {number(height)}",
                "width": WIDTH,
                "height": height,
                "role": "img",
                "aria_labelledby": f"{name}-title {name}-desc",
            }
        ),
    )
    ET.SubElement(root, "title", id=f"{name}-title").text = printable(title)
    ET.SubElement(root, "desc", id=f"{name}-desc").text = printable(description)
    return root


def write(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")


def words(parent: ET.Element, at: tuple[float, float], text: str, **attributes: object) -> ET.Element:
    """Text at a point; `room` (pixels) cuts it and keeps the whole as its tooltip."""
    room = attributes.pop("room", None)
    shown = brief(text, max(2, int(float(str(room)) / CHARACTER))) if room is not None else printable(text)
    element = part(parent, "text", x=at[0], y=at[1], **attributes)
    element.text = shown
    if shown != text:
        ET.SubElement(element, "title").text = brief(text, 1000)
    return element


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _plain(attributes: dict[str, object]) -> dict[str, str]:
    names = {"css": "class"}
    return {
        names.get(name, name.replace("_", "-")): number(value) if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }


# Shape, beside colour and pattern, says what a mark means: none of them is needed alone.
SHAPES = ("dot", "ring", "square", "diamond", "triangle", "cross", "bar", "hollow")


@dataclass(frozen=True, slots=True)
class Look:
    """How one word is drawn everywhere: its CSS class (colour and pattern) and its shape."""

    css: str
    shape: str


def mark(parent: ET.Element, look: Look, x: float, y: float, size: float = 4.5) -> None:
    """A mark of the look's shape around a point."""
    css = f"mark {look.css}"
    match look.shape:
        case "dot" | "ring":
            part(parent, "circle", cx=x, cy=y, r=size, css=f"{css} {look.shape}")
        case "square":
            part(parent, "rect", x=x - size, y=y - size, width=2 * size, height=2 * size, css=css)
        case "bar":
            part(parent, "rect", x=x - size, y=y - size / 2.5, width=2 * size, height=size / 1.25, css=css)
        case "triangle":
            corners = [
                (x, y - size * 1.15),
                (x + size * 1.1, y + size * 0.85),
                (x - size * 1.1, y + size * 0.85),
            ]
            part(parent, "polygon", points=_points(corners), css=css)
        case "diamond" | "hollow":
            reach = size * 1.25
            corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
            shape = "ring" if look.shape == "hollow" else ""
            part(parent, "polygon", points=_points(corners), css=f"{css} {shape}".strip())
        case _:
            d = f"M{number(x - size)} {number(y - size)}L{number(x + size)} {number(y + size)}"
            d += f"M{number(x + size)} {number(y - size)}L{number(x - size)} {number(y + size)}"
            part(parent, "path", d=d, css=f"{css} stroke")


def glyph(look: Look) -> str:
    """The mark alone, to stand beside the word that it goes with."""
    root = ET.Element("svg", {"viewBox": "-7 -7 14 14", "class": "glyph", "aria-hidden": "true"})
    mark(root, look, 0.0, 0.0, 4.6)
    return write(root)


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in corners)


def nice_ticks(largest: float, about: int = 4) -> list[float]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, the last not below `largest`."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / about
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(step * i, 9) for i in range(ceil(round(largest / step, 9)) + 1)]


def count_ticks(largest: int, about: int = 4) -> list[int]:
    """Ticks for whole things."""
    ticks = nice_ticks(max(largest, 1), min(about, max(largest, 1)))
    return sorted({round(tick) for tick in ticks})
