"""A table of short one-line cells that may have as many rows as a day has cancels: drawn as rich draws it, only faster."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# Fills a column in the row from which the widths are read; what is cut ends in an ellipsis.
PROBE = "x"
FILLED = re.compile(f"([{PROBE}…]+)")


class LongTable:
    """The table of `make`, whose columns wrap nothing, with `rows`: rich takes half a millisecond for each of them."""

    def __init__(self, make: Callable[[], Table], rows: Iterable[Sequence[str]]) -> None:
        self._make = make
        self._rows = list(rows)

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich draws head, end and one row as wide as the widest cells; the rows are written into that one's place."""
        probe = _with_rows(self._make(), [[PROBE * width for width in self._widest()]])
        drawn = list(Segment.split_lines(console.render(probe, options)))
        place = max(i for i, line in enumerate(drawn) if FILLED.search(_text(line)))
        gaps, widths = _measured(_text(drawn[place]))
        own = ([Segment(_written(row, gaps, widths))] for row in self._rows)
        for line in chain(drawn[:place], own, drawn[place + 1 :]):
            yield from (*line, Segment.line())

    def _widest(self) -> Iterator[int]:
        heads = (str(column.header) for column in self._make().columns)
        for cells in zip(heads, *self._rows, strict=True):
            yield max(map(_width, cells))


def _with_rows(table: Table, rows: Iterable[Sequence[str]]) -> Table:
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _measured(row: str) -> tuple[list[str], list[int]]:
    """What stands before, between and after the cells of the filled row, and the width of each."""
    parts = FILLED.split(row)
    return parts[::2], [len(cell) for cell in parts[1::2]]


def _written(row: Sequence[str], gaps: Sequence[str], widths: Sequence[int]) -> str:
    text = gaps[0]
    for cell, width, gap in zip(row, widths, gaps[1:], strict=True):
        text += (cell.ljust(width) if cell.isascii() and len(cell) <= width else _fitted(cell, width)) + gap
    return text


def _fitted(cell: str, width: int) -> str:
    text = Text(cell)
    text.truncate(width, overflow="ellipsis", pad=True)
    return text.plain


def _width(cell: str) -> int:
    return len(cell) if cell.isascii() else cell_len(cell)


def _text(line: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in line)
