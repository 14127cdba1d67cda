"""What a page is made of, and how it becomes one HTML file that opens from the disk."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

LONGEST = 240
"""Letters of a text beyond which it is folded."""


@dataclass(frozen=True)
class Prose:
    """A paragraph, or a remark in small letters."""

    text: str
    is_remark: bool = False
    kind: str = "prose"


@dataclass(frozen=True)
class Table:
    """A table, which is sorted by a click on a heading; None is an empty cell, and `Markup` stands as it is."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    is_searched: bool = False
    """Whether a box searches its rows."""
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A figure, held by the page."""

    title: str
    source: str
    kind: str = "figure"


@dataclass(frozen=True)
class Folded:
    """Plain text that is shown when asked for."""

    title: str
    text: str
    kind: str = "folded"


Part = Prose | Table | Figure | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Tile:
    """A number that is seen first."""

    value: str
    what: str
    remark: str = ""


@dataclass(frozen=True)
class Page:
    """A page; sections without parts are left out."""

    title: str
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    remarks: Sequence[str]
    """What stands under the tiles."""


@dataclass(frozen=True)
class Drawer:
    """Draws figures into a folder, and returns them as parts of a page."""

    folder: Path

    def __call__(self, name: str, title: str, draw: Callable[..., None], *arguments: Any) -> Figure:
        """Draw a figure by one of the functions of figures.py: PNG and SVG in the folder."""
        path = self.folder / name
        draw(path, *arguments)
        # As an image, so that neither ids nor styles of two figures get into each other's way.
        svg = b64encode(path.with_suffix(".svg").read_bytes()).decode()
        return Figure(title, f"data:image/svg+xml;base64,{svg}")


def write(page: Page, path: Path) -> None:
    """Write a page, so that it is there whole or not at all."""
    environment = Environment(
        loader=PackageLoader("ulmfit_style", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["is_number"] = lambda value: isinstance(value, int | float)
    environment.filters["cell"] = _cell
    sections = [section for section in page.sections if section.parts]
    text = environment.get_template("page.html").render(page=page, sections=sections, longest=LONGEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _cell(value: Any) -> Any:
    """Return what stands in a cell: numbers with three places or thousands, and nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else value
