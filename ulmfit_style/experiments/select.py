"""select: pick the texts that are worth labelling next, and check the labels that come back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ulmfit_style import chain
from ulmfit_style.analysis import strategies
from ulmfit_style.analysis.strategies import Array
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.data import guard, labelled
from ulmfit_style.data.splits import normalised
from ulmfit_style.errors import UserError
from ulmfit_style.resolved import Resolved
from ulmfit_style.results.finished import FROZEN
from ulmfit_style.results.parts import Difference
from ulmfit_style.stages import predict, references
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base_text import LabelTask

DRAWS = 10
"""How often half of the labels are drawn to tell what more labels would bring."""


def run(overrides: Sequence[str]) -> None:
    """Pick texts of a config's corpus to be labelled, or with `select.merge` check the labels that came back.

    Raises:
        UserError: if the task has no single texts with classes, no text is left, or something in a file is wrong.
    """
    resolved = resolve(compose(overrides))
    task, options = resolved.task, resolved.config.select
    if not isinstance(task, LabelTask) or task.text_pair or isinstance(task.text or task.label, tuple):
        kinds = "task=text_classification or task=multi_label_classification"
        raise UserError(f"select: picks texts for classes: {kinds}, with one column of texts and one of labels")
    if options.merge is None:
        _pick(resolved, task, Path(options.output).expanduser())
    else:
        _merge(resolved, task, options.merge)


def _pick(resolved: Resolved, task: LabelTask, output: Path) -> None:
    """Write the texts to label next to a file, with what the model that there is says of them."""
    if output.suffix not in (".xlsx", ".csv"):
        raise UserError(f"select.output={output}: must end in .xlsx or .csv")
    if output.exists():
        remedy = f"check them with select.merge={output}, or choose another name"
        raise UserError(f"select.output={output}: is there already, and may hold labels; {remedy}")
    options, features_of = resolved.config.select, _features(resolved)
    rows = resolved.rows if task.path.files() else None
    right = {} if rows is None else {normalised(task.texts(row)[0]): task.target(row) for row in rows.train}
    texts = [text for text in features_of if rows is None or normalised(text) not in rows.held]
    targets, features = [right.get(normalised(text)) for text in texts], np.array([features_of[text] for text in texts])
    is_known = np.array([target is not None for target in targets])
    count = min(options.count, left := len(texts) - int(is_known.sum()))
    if not count:
        raise UserError("select: all texts of the corpus have labels; name more: corpus=file corpus.path=<file>")
    if count < options.count:
        say(f"select.count={options.count:,}: only {count:,} texts have no label, and all of them are picked")
    model, scores = _scores(resolved, task, texts, features, targets)
    if options.strategy == "random":
        picked = strategies.at_random(is_known, count)
    elif scores is not None and task.is_single_label and is_known.any():
        picked = strategies.mixed(features, scores.to_numpy(), is_known, count)
    else:
        picked = strategies.typical(features, is_known, count)
    table = pd.DataFrame({task.text or "text": [texts[number] for number in picked], task.label or "label": ""})
    if scores is not None:
        table["guess"], table["probability"] = scores.idxmax(axis=1).take(picked), scores.max(axis=1).take(picked)
    _write(output, table, rows.classes if rows is not None and task.is_single_label else [])
    say(f"select: {count:,} of {left:,} texts without a label, with guesses by {model}: {output}")
    say(f"Fill in its column '{table.columns[1]}'; rows without are left out. Next, with the same options:")
    say(f"  make select select.merge={output}")
    if rows is not None:
        _outlook(resolved, task)


def _features(resolved: Resolved) -> dict[str, Array]:
    """Return the frozen features of all texts, with a label or without; they are kept, for labels change no text."""
    rows = resolved.rows if resolved.task.path.files() else None
    corpus = (resolved.variant(task=None) if rows is None else resolved).corpus
    members = [] if rows is None else [*rows.train, *rows.validation, *rows.test]
    texts = sorted({*corpus.train, *corpus.heldout, *(resolved.task.texts(row)[0] for row in members)})
    chain.quiet_libraries()
    return dict(zip(texts, references.features_of(resolved, texts)[1], strict=True))


def _scores(
    resolved: Resolved, task: LabelTask, texts: Sequence[str], features: Array, targets: Sequence[Any]
) -> tuple[str, pd.DataFrame | None]:
    """Return the model that there is, and its probability of each class: a finished one, or a regression of labels."""
    if (directory := resolved.unchanged("finetune")) is not None:
        from ulmfit_style.predictor import Predictor

        answers = Predictor(str(directory), task={"top_k": "all"}).stream(map(task.row, texts))
        return str(directory), pd.DataFrame([answer["scores"] for answer in answers])
    known = [number for number, target in enumerate(targets) if target is not None]
    if not known or not task.is_single_label:
        return "no model", None
    right = [targets[number] for number in known]
    inputs, regression = regression_of(features, right)
    regression.fit(inputs[known], right)
    return FROZEN, pd.DataFrame(regression.predict_proba(inputs), columns=regression.classes_)


def regression_of(features: Array, labels: Sequence[str]) -> tuple[Array, Any]:
    """Return what `finetune=few_labels` solves a head by: standardised features, and a regression of labels."""
    from sklearn.linear_model import LogisticRegression

    from ulmfit_style.training import solving

    penalty = solving.AFTER_CONTRAST * len(set(labels)) / len(labels)
    return solving.standard_scaler(features).transform(features), LogisticRegression(C=penalty, max_iter=1000)


def _write(output: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Write a csv file, or a spreadsheet that offers the classes for its second column."""
    if output.suffix == ".csv":
        table.map(predict.guarded).to_csv(output, index=False)
        return
    as_text = {"options": {"strings_to_formulas": False, "strings_to_urls": False}}
    with pd.ExcelWriter(output, engine="xlsxwriter", engine_kwargs=as_text) as book:
        table.to_excel(book, sheet_name="texts", index=False)
        pd.Series(classes, dtype=str).to_excel(book, sheet_name="classes", index=False, header=False)
        offered = {"validate": "list", "source": f"=classes!$A$1:$A${len(classes)}", "error_type": "warning"}
        if classes:
            book.sheets["texts"].data_validation(1, 1, len(table), 1, offered)


def _merge(resolved: Resolved, task: LabelTask, given: str) -> None:
    """Check the rows of a file that was filled in, with those that there are, and say what they bring."""
    source, chosen = f"select.merge={given}", task.path.chosen or ()
    if not (filled := labelled.with_label(task, labelled.read(task, "select.merge", given))):
        raise UserError(f"{source}: no row has a label yet; fill in the column of labels")
    if known := task.labels or (resolved.rows.classes if task.path.files() else ()):
        problem = "is in no labelled row; correct it, or name it among all classes: task.labels=[...]"
        labelled.require_known(task, known, filled, source, problem)
    files = dict.fromkeys([*([chosen] if isinstance(chosen, str) else chosen), given])
    path = task.path.model_copy(update={"chosen": tuple(files)})
    after = resolved.variant(task=task.model_copy(update={"path": path}))
    for line in guard.lines(after.findings):
        say(line)
    _outlook(after, task)
    say(f"Next, with the same options and 'task.path={path}', which can as well stand in the YAML of the task:")
    say("  make finetune")
    say("  make select select.output=<another file>")


def _outlook(resolved: Resolved, task: LabelTask) -> None:
    """Print what a regression on frozen features scores by half of the labels and by all, and what more would bring."""
    from sklearn.model_selection import ShuffleSplit, learning_curve

    rows, features_of, more = resolved.rows, _features(resolved), resolved.config.select.count
    labels, chance = len(rows.train), np.random.default_rng(0)
    every = [*rows.train, *([] if rows.folds else rows.test)]
    inputs, regression = regression_of(
        np.array([features_of[task.texts(row)[0]] for row in every]), [str(task.target(row)) for row in rows.train]
    )
    trials = [(chance.permutation(labels), range(labels, len(every))) for _ in range(DRAWS)]
    if rows.folds:
        trials = ShuffleSplit(DRAWS, test_size=0.2, random_state=0)
    right = np.array([str(task.target(row)) for row in every])
    scores = learning_curve(regression, inputs, right, train_sizes=[0.5, 1.0], cv=trials)[2]
    halves, errors = 1 - scores + 1e-9
    gains = errors * (1 - (errors / halves) ** np.log2(1 + more / labels))
    half, all_labels, gain = 1 - halves.mean(), 1 - errors.mean(), Difference(*np.quantile(gains, (0.5, 0, 1)))
    say(f"{FROZEN}: {task.metric} {half:.3f} with half of {labels:,} labels, {all_labels:.3f} with all.")
    say(f"If it goes on so, {more:,} more bring {gain} points; in brackets the least and the most of {DRAWS} draws.")
