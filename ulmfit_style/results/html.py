"""Results as an HTML page that opens from the disk, holds its figures and loads nothing."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ulmfit_style.artefacts.directory import whole
from ulmfit_style.results.parts import Alignment, Figure, Part, Prose, Table, as_text
from ulmfit_style.tasks.base import Answer, Row, Task
from ulmfit_style.tasks.values import Span

LONGEST = 240
"""Letters of a text beyond which it is folded."""

MOST_ALIGNED = 80
"""Tokens on each side of a matrix that are shown."""

LEGENDS = yaml.safe_load(Path(__file__).with_name("legends.yaml").read_text(encoding="utf-8"))
"""How to read what is drawn of explanations."""


class Page(NamedTuple):
    """A page."""

    title: str
    lead: str
    sections: dict[str, list[Part]]
    """By their headings; those without parts are left out."""


def write(page: Page, path: Path) -> Path:
    """Write a page, so that it is there whole or not at all, and return the folder beside it that holds its figures."""
    folder = path.with_suffix("")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["text"] = lambda cell: cell if isinstance(cell, Markup) else as_text(cell)
    environment.filters["source"] = lambda figure: _source(figure, folder)
    template = environment.from_string(Path(__file__).with_name("template.html").read_text(encoding="utf-8"))
    with whole(path) as file:
        file.write(template.render(page=page, longest=LONGEST, most_aligned=MOST_ALIGNED))
    return folder


def _source(figure: Figure, folder: Path) -> str:
    """Draw a figure into a folder, and return it as the address of an image."""
    # As an image, so that neither ids nor styles of two figures get into each other's way.
    path = folder / figure.name
    figure.draw(path)
    return f"data:image/svg+xml;base64,{b64encode(path.with_suffix('.svg').read_bytes()).decode()}"


def explained(task: Task, answers: Iterable[tuple[Row, Answer]]) -> list[Part]:
    """Return the texts of rows, the tokens coloured by what they did for each part of the answer; or its alignment.

    Args:
        answers: Rows, each with its answer, which has `explanations`.
    """
    if task.writes:
        named = ((f"{row.place}: {task.texts(row)[0]}", answer["explanations"]) for row, answer in answers)
        matrices = [Alignment(name[:LONGEST], *explained) for name, explained in named]
        return [Prose(LEGENDS["alignment"]), *matrices] if matrices else []
    rows: list[tuple[Any, ...]] = []
    for row, answer in answers:
        texts = task.texts(row)
        for part in answer["explanations"]:
            text = Markup("<br>").join(coloured(texts, part["tokens"]))
            by = f", most of it by “{texts[0][slice(*part['window'])]}”" if "window" in part else ""
            rows.append((row.place, text, part["of"] + by, part["logit"]))
        if not answer["explanations"]:
            rows.append((row.place, " / ".join(texts), "nothing was answered", None))
    table = Table(("row", "text", "explained", "logit"), rows, is_searched=True)
    return [Prose(LEGENDS["tokens"]), table] if rows else []


def coloured(texts: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return texts with their tokens coloured: green where the score is positive, red where it is negative.

    Args:
        tokens: Each with the number of its `text`, its `start` and `end` there, and its `score`.
    """
    strongest = max((abs(token["score"]) for token in tokens), default=1) or 1
    styled = Markup('<span style="background:rgba({},{:.2f})" title="{:+.3f}">')
    marks: list[list[tuple[int, int, Markup, Markup]]] = [[] for _ in texts]
    for token in tokens:
        colour = "0,128,96" if token["score"] > 0 else "200,40,40"
        begin = styled.format(colour, 0.8 * abs(token["score"]) / strongest, token["score"])
        marks[token["text"]].append((token["start"], token["end"], begin, Markup("</span>")))
    return [_marked(text, of_text) for text, of_text in zip(texts, marks, strict=True)]


def with_names(text: str, spans: Iterable[Span]) -> Markup:
    """Return a text whose stretches are marked with what they are."""
    begin, end = Markup("<mark>"), Markup(" <small>{}</small></mark>")
    return _marked(text, [(first, last, begin, end.format(name)) for first, last, name in spans])


def _marked(text: str, marks: Iterable[tuple[int, int, Markup, Markup]]) -> Markup:
    """Return a text with what begins and ends each mark; of two that overlap the second begins where the first ends."""
    marked, done = Markup(), 0
    for start, end, begin, close in sorted(marks, key=lambda mark: mark[0]):
        marked += escape(text[done : max(done, start)]) + begin + escape(text[max(done, start) : end]) + close
        done = max(done, end)
    return marked + escape(text[done:])
