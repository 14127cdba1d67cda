"""What a result is made of: prose, tables and figures, which the modules beside render.

A stage or a command puts its numbers, as numbers, into the parts below; how they look is decided in `as_text` alone:

    table = Table(
        ("model", "accuracy", "95 % interval"),
        [("fine-tuned", 0.6912, Interval(0.673, 0.709)), ("TF-IDF", 0.6011, Interval(0.582, 0.62))],
        "100 labelled training rows, 2,560 test rows",
    )
    draw = partial(figures.matrix, classes=["bad", "good"], counts=[[30, 9], [7, 34]])
    figure = Figure("confusion", "Which classes are taken for others", draw)

    terminal.show(table, Prose("A sentence."))       # the terminal
    csv.write(folder / "results.csv", table)         # csv, with all digits
    markdown.table(table)                            # the model card
    figure.draw(folder / figure.name)                # folder/confusion.png and .svg
    html.write(Page(..., {"Scores": [table, figure]}), folder / "report.html")   # the page

Tables of scores with intervals, and the sentences on what a difference is worth, are in `scores`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal


class Interval(NamedTuple):
    """The 95 % interval of a score."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


class Difference(NamedTuple):
    """What two scores differ by, with its 95 % interval, as `difference` returns it; shown in points of 100."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return not self.low <= 0 <= self.high

    @property
    def points(self) -> str:
        """The difference alone, in points: `+1.2`."""
        return f"{100 * self.value:+.1f}"

    @property
    def span(self) -> str:
        """Its interval, in points: `-0.3 to +2.7`."""
        return f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"

    def __str__(self) -> str:
        return f"{self.points} ({self.span})"


class Size(int):
    """Bytes, shown in the unit that fits: `37.5 kB`."""

    def __str__(self) -> str:
        return decimal(self)


Cell = Any
"""A text, a number, an `Interval`, a `Difference` or a `Size`; None is an empty cell. On the page, `Markup` stands as
it is."""


class Table(NamedTuple):
    """A table; a column is aligned by what stands in its first row: numbers to the right, texts to the left."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    is_searched: bool = False
    """Whether a box on the page searches the rows."""

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers."""
        return bool(self.rows) and isinstance(self.rows[0][column], int | float | Interval | Difference)


class Prose(NamedTuple):
    """A paragraph, or a remark in small letters."""

    text: str
    is_remark: bool = False


class Figure(NamedTuple):
    """A figure, with a function of `figures` that needs nothing more than the path, such as a `partial`."""

    name: str
    """That of its files, without the ending."""
    title: str
    draw: Callable[[Path], None]


class Alignment(NamedTuple):
    """What a model looked at for each token that it wrote: a matrix, of which a page shows a part where it is large."""

    title: str
    explanation: Mapping[str, Any]
    """As `attributions.aligned` has it."""


Part = Prose | Table | Figure | Alignment


def as_text(cell: Cell) -> str:
    """Return how a cell is shown: scores with three digits, counts with commas, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.3f}"
    return f"{cell:,}" if type(cell) is int else str(cell)
