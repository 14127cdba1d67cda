"""Results as an HTML page that opens from the disk, holds its figures and loads nothing."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ulmfit_style.results import figures
from ulmfit_style.results.model import Difference, Figure, Folded, Interval, Part, Prose, Table, as_text

LONGEST = 240
"""Letters of a text beyond which it is folded."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Tile:
    """A number that is seen first."""

    value: str
    meaning: str
    remark: str = ""


@dataclass(frozen=True)
class Page:
    """A page; sections without parts are left out."""

    title: str
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    remarks: Sequence[str] = ()
    """What stands under the tiles."""


def write(page: Page, path: Path) -> Path:
    """Write a page, so that it is there whole or not at all, and return the folder beside it that holds its figures."""
    folder = path.with_suffix("")
    environment = Environment(
        loader=PackageLoader("ulmfit_style.results", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {"prose": Prose, "table": Table, "figure": Figure, "folded": Folded}
    environment.tests |= {name: lambda part, kind=kind: isinstance(part, kind) for name, kind in kinds.items()}
    environment.filters |= {"text": _text, "sort_key": _sort_key, "source": lambda figure: _source(figure, folder)}
    sections = [section for section in page.sections if section.parts]
    text = environment.get_template("page.html").render(page=page, sections=sections, longest=LONGEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return folder


def _source(figure: Figure, folder: Path) -> str:
    """Draw a figure into a folder, and return it as the address of an image."""
    # As an image, so that neither ids nor styles of two figures get into each other's way.
    svg = figures.save(figure, folder).with_suffix(".svg").read_bytes()
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"


def _text(cell: Any) -> str:
    return cell if isinstance(cell, Markup) else as_text(cell)


def _sort_key(cell: Any) -> float | None:
    """Return the number that a cell is sorted by; None for a text."""
    return cell[0] if isinstance(cell, Interval | Difference) else cell if isinstance(cell, int | float) else None


def bar(share: float) -> Markup:
    """Return a bar that shows a share of the largest value."""
    return Markup('<span class="bar" style="width:{:.1f}rem"></span>').format(14 * share)


def coloured(texts: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return texts with their tokens coloured: green where the score is positive, red where it is negative.

    Args:
        tokens: Each with the number of its `text`, its `start` and `end` there, and its `score`.
    """
    strongest = max((abs(token["score"]) for token in tokens), default=1) or 1
    return [
        _coloured(text, [token for token in tokens if token["text"] == number], strongest)
        for number, text in enumerate(texts)
    ]


def _coloured(text: str, tokens: Sequence[Mapping[str, Any]], strongest: float) -> Markup:
    html, place = Markup(), 0
    for token in sorted(tokens, key=lambda token: token["start"]):
        start, end, score = max(place, token["start"]), token["end"], token["score"]
        colour = "0,128,96" if score > 0 else "200,40,40"
        html += escape(text[place:start])
        html += Markup('<span style="background:rgba({},{:.2f})" title="{:+.3f}">{}</span>').format(
            colour, 0.8 * abs(score) / strongest, score, text[start:end]
        )
        place = max(place, end)
    return html + escape(text[place:])
