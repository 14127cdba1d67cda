"""Tables of scores with intervals, and plain sentences on what they tell, wherever scores are shown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ulmfit_style import errors
from ulmfit_style.results.parts import Difference, Interval, Prose, Table

Measured = Mapping[str, Any]
"""What `Task.measure` returns: `rows`, `scores`, `interval` (of the task's metric), `intervals` (of each score)."""

INTERVAL = "95 % interval"

FEWEST = 30
"""Rows from which on a group, or a class, is judged: at fewer the interval of a score spans a third of its range."""

MOST_LISTED = 10
"""Names of small groups that are listed."""


def by_name(metric: str, measured: Mapping[str, Measured], title: str = "", *, of: str = "model") -> Table:
    """Return the table of one score of several models, or on several groups of rows.

    Args:
        of: The header of the names, such as "model" or "country".
    """
    rows = [(name, one["rows"], one["scores"][metric], Interval(*one["interval"])) for name, one in measured.items()]
    return Table((of, "rows", metric, INTERVAL), rows, title)


def edges(measured: Iterable[Measured], metric: str | None = None) -> list[Prose]:
    """Say which intervals of a table, of one score or of all, are not bootstrapped."""
    bounds = {score for scored in measured for name, score in scored["scores"].items() if metric in (None, name)}
    wilson = "The interval of a score of 0 or 1 is Wilson's, by the number of rows; others are bootstrapped."
    return [Prose(wilson)] if bounds & {0, 1} else []


def measured_how(metrics: Mapping[str, Any]) -> str:
    """Return how the test scores of a model were measured: `on 2,565 test rows`, or in cross-validation."""
    rows, folds = f"{metrics['test']['rows']:,}", metrics.get("folds")
    return f"on {rows} test rows" if folds is None else f"in {folds}-fold cross-validation over {rows} rows"


def by_score(measured: Mapping[str, Measured], title: str = "") -> Table:
    """Return the table of all scores of a model, with their intervals, on one set of rows or several side by side."""
    header = ["score"]
    for name, scored in measured.items():
        header += [f"{name} ({scored['rows']:,} rows)", INTERVAL]
    rows = []
    for name in dict.fromkeys(name for scored in measured.values() for name in scored["scores"]):
        cells: list[Any] = [name]
        for scored in measured.values():
            interval = scored["intervals"].get(name)
            cells += [scored["scores"].get(name), None if interval is None else Interval(*interval)]
        rows.append(cells)
    return Table(header, rows, title)


def classes(report: Sequence[Mapping[str, Any]]) -> list[Prose | Table]:
    """Return the scores of each class, and which classes are too small to judge; nothing for a task without classes.

    Args:
        report: What `Task.class_report` returned.
    """
    if not report:
        return []
    table = Table(list(report[0]), [list(entry.values()) for entry in report])
    small = {entry["class"]: count for entry in report if (count := int(list(entry.values())[-1])) < FEWEST}
    said = f"Too few to judge a class by itself, under {FEWEST}: {listed(small)}"
    return [table, *([Prose(said, is_remark=True)] if small else [])]


def groups(metrics: Mapping[str, Any]) -> list[Prose | Table]:
    """Return the scores of the groups of rows that `evaluate` measured, and what the probe found of the answers.

    Args:
        metrics: Those of `evaluate`.
    """
    return [*slices(metrics["metric"], metrics.get("slices", {})), *probed(metrics.get("probe", {}))]


def slices(metric: str, measured: Mapping[str, Any]) -> Iterator[Prose | Table]:
    """Yield the scores of each group of rows, which of them are too small to judge, and the widest gap.

    Args:
        measured: What `analysis.slices.measure` returned.
    """
    for column, entry in measured.items():
        judged = {name: group for name, group in entry["groups"].items() if group["rows"] >= FEWEST}
        small = {name: group["rows"] for name, group in entry["groups"].items() if name not in judged}
        if judged:
            yield by_name(metric, judged, of=column)
        if small:
            yield Prose(f"{column}: too few rows to judge, under {FEWEST}: {listed(small)}")
        if (gap := entry["gap"]) is not None:
            yield Prose(widest_gap(column, metric, gap, len(judged)), is_remark=True)


def probed(models: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return for each model how many rows have words that are exchanged, and which share of its answers changes.

    Args:
        models: What `analysis.probe.measure` returned, by the names of the models.
    """
    rows = []
    for model, exchanges in models.items():
        for name, result in exchanges.items():
            interval = result["interval"]
            rows.append((name, model, result["rows"], result["share"], Interval(*interval) if interval else None))
    header = ("exchanged", "model", "rows", "changed", INTERVAL)
    return [Table(header, rows, "Answers that change when names and words are exchanged")] if rows else []


def losses(heldout: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Return the table of a language model's losses on held-out text, before training and after each phase."""
    columns = [name for name in heldout[0] if name != "after"]
    rows = [(entry["after"], *(float(entry[name]) for name in columns)) for entry in heldout]
    return Table(("after", *(name.replace("_", " ") for name in columns)), rows, title)


def verdict(difference: Difference, seeds: int = 1) -> str:
    """Say what the interval of a difference over so many seeds tells."""
    if not difference.is_clear:
        return "it cannot be told from zero"
    if seeds == 1:
        return "the interval excludes zero, but one seed cannot tell a difference from luck"
    return "the interval excludes zero"


def worth(what: str, difference: Difference, seeds: int = 1, rows: str = "test rows") -> str:
    """Say what a difference is worth: `what` is how the sentence begins, such as "Adaptation changed accuracy by"."""
    over = f"{'one seed' if seeds == 1 else f'{seeds} seeds'} and the {rows}"
    span = f"95 % interval {difference.span}, over {over}"
    return f"{what} {difference.points} points ({span}): {verdict(difference, seeds)}."


def highest(metric: str, measured: Mapping[str, Measured], paired: Mapping[frozenset[str], Difference] = {}) -> str:
    """Say which of several models scored highest on the same rows, if it can be told from each of the others.

    Args:
        paired: What two models differ by, paired on the rows. Others are told apart if their intervals do not overlap.
    """
    best, *others = sorted(measured, key=lambda name: -measured[name]["scores"][metric])
    tied = []
    for other in others:
        difference = paired.get(frozenset((best, other)))
        overlap = measured[best]["interval"][0] <= measured[other]["interval"][1]
        if overlap if difference is None else not difference.is_clear:
            tied.append(other)
    if not tied:
        return f"Highest on these rows: {best}."
    others = [f"'{name}'" for name in tied[:MOST_LISTED]]
    others += [f"{len(tied) - MOST_LISTED} more"] if len(tied) > MOST_LISTED else []
    return f"None stands out on these rows: '{best}' cannot be told from {', nor from '.join(others)}."


def listed(counts: Mapping[str, int]) -> str:
    """Return names with their numbers of rows, the largest first, and how many more there are."""
    ranked = sorted(counts, key=lambda name: -counts[name])
    return errors.listed([f"{name} ({counts[name]})" for name in ranked], MOST_LISTED)


def widest_gap(column: str, metric: str, gap: Mapping[str, Any], groups: int) -> str:
    """Say how far the two groups lie apart that lie farthest; of many, some two do so by chance.

    Args:
        gap: What `analysis.slices.measure` found of the column.
        groups: How many groups were judged.
    """
    widest = f"{gap['value']:.3f} {metric}, from {gap['lowest']} to {gap['highest']}"
    return f"{column}: the widest gap of {groups} groups is {widest}"
