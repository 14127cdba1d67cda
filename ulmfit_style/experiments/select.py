"""select: pick the texts that are worth labelling next, and check the labels that come back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import StratifiedShuffleSplit, learning_curve
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.console import say
from ulmfit_style.data import guard, labelled
from ulmfit_style.data.rows import normalised
from ulmfit_style.errors import UserError
from ulmfit_style.resolved import Resolved
from ulmfit_style.results import csv, finished
from ulmfit_style.stages import predict, references
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base_text import LabelTask

NEIGHBOURS = 20
"""Those of its cluster by which it is told how typical a text is."""

SMALLEST = 5
"""Texts of the smallest cluster in which one is typical of something."""

MOST_CLUSTERS = 500

DOUBTFUL = 10
"""Times as many texts as are picked are those that a model is the least sure of."""

FEWEST, DRAWS, RARE = 20, 20, 4
"""Labels below which it is not told what more would bring, how often they are divided to tell it, and labels of a class
below which it is left out of that."""

Array = np.ndarray[Any, Any]


def run(overrides: Sequence[str]) -> None:
    """Pick texts of a config's corpus to be labelled, or with `select.merge` check the labels that came back.

    Raises:
        UserError: if the task has no single texts with classes, no text is left, or something in a file is wrong.
    """
    resolved = resolve(compose(overrides))
    task, given = resolved.task, resolved.config.select.merge
    if not isinstance(task, LabelTask) or task.text_pair or isinstance(task.text or task.label, tuple):
        needed = "a task of classes or labels, with one column of texts and one of labels"
        raise UserError(f"select: needs {needed}; this one is {type(task).__name__}")
    if given is None:
        _pick(resolved, task, Path(resolved.config.select.output).expanduser())
    else:
        _merge(resolved, task, given)


def _pick(resolved: Resolved, task: LabelTask, output: Path) -> None:
    """Write the texts to label next to a file, with what the model that there is says of them."""
    predict.require_writable("select.output", output, (".xlsx", ".csv"))
    if output.exists():
        remedy = f"choose another name; if it has labels, they are checked with select.merge={output}"
        raise UserError(f"select.output={output}: is there already; {remedy}")
    texts, features, labels = _texts(resolved)
    is_known = pd.notna(labels)
    count = min(resolved.config.select.count, left := int((~is_known).sum()))
    if not count:
        raise UserError("select: all texts of the corpus have labels; name more: corpus=file corpus.path=<file>")
    model, scores = _scores(resolved, texts, features, labels)
    if resolved.config.select.strategy == "random":
        picked = np.random.default_rng(0).permutation(np.flatnonzero(~is_known))[:count].tolist()
    elif scores.shape[1] > 1:
        picked = mixed(features, scores.to_numpy(), is_known, count)
    else:
        picked = typical(features, is_known, count)
    table = pd.DataFrame({task.text or "text": np.array(texts, dtype=object)[picked], task.label or "label": ""})
    if len(scores):
        likeliest = scores.iloc[picked].reset_index(drop=True)
        table["guess"], table["probability"] = likeliest.idxmax(axis=1), likeliest.max(axis=1)
    if output.suffix == ".csv":
        table.map(csv.guarded).to_csv(output, index=False)
    else:
        as_text = {"options": {"strings_to_formulas": False, "strings_to_urls": False}}
        table.to_excel(output, sheet_name="texts", index=False, engine="xlsxwriter", engine_kwargs=as_text)
    asked = "" if count == resolved.config.select.count else f" ({resolved.config.select.count:,} were asked for)"
    guesses = f", with guesses by {model}" if model else ""
    say(f"select: {count:,} of {left:,} texts without a label{asked}{guesses}: {output}")
    say(f"Fill in its column '{table.columns[1]}'; then, with the same options: make select select.merge={output}")
    _outlook(resolved, features, labels)


def _texts(resolved: Resolved) -> tuple[list[str], Array, Array]:
    """Return all texts that may be learnt from, their frozen features, and their labels: None where there is none.

    The features are kept, for labels change no text.
    """
    task, rows = resolved.task, resolved.rows.train if resolved.task.path.files() else []
    corpus = (resolved if task.path.files() else resolved.variant(task=None)).corpus
    labels = {normalised(task.texts(row)[0]): task.target(row) for row in rows}
    found = sorted({*corpus.train, *corpus.heldout, *(task.texts(row)[0] for row in rows)})
    texts = list({normalised(text): text for text in found}.values())
    chain.quiet_libraries()
    of_texts = pd.Series([labels.get(normalised(text)) for text in texts], dtype=object)
    return texts, references.features_of(resolved, texts)[1], of_texts.to_numpy()


def _scores(resolved: Resolved, texts: Sequence[str], features: Array, labels: Array) -> tuple[str, pd.DataFrame]:
    """Return what model there is, finished or a regression of labels, and its probabilities of the classes."""
    if (directory := resolved.unchanged("finetune")) is not None:
        from ulmfit_style.predictor import Predictor

        answers = Predictor(str(directory), task={"top_k": "all"}).stream(map(resolved.task.row, texts))
        return str(directory), pd.DataFrame([answer["scores"] for answer in answers])
    known = pd.notna(labels)
    if not resolved.task.is_single_label or len(set(labels[known])) < 2:
        return "", pd.DataFrame()
    inputs, regression = regression_of(features, labels[known])
    regression.fit(inputs[known], labels[known])
    return finished.FROZEN, pd.DataFrame(regression.predict_proba(inputs), columns=regression.classes_)


def typical(features: Array, is_known: Array, count: int, seed: int = 0) -> list[int]:
    """Return the most typical texts of clusters, those of large clusters first that hold no label.

    It is TypiClust (Hacohen et al. 2022): there are as many clusters as there will be labels, and a text is typical
    that is near to its neighbours.

    Args:
        features: Those of all texts, (texts, width).
        is_known: Which texts have a label, (texts,).
    """
    ranked, units, clusters = [], normalize(features), min(int(is_known.sum()) + count, MOST_CLUSTERS)
    cluster_of = MiniBatchKMeans(clusters, n_init=1, batch_size=2048, random_state=seed).fit_predict(units)
    for cluster in np.unique(cluster_of):
        members = np.flatnonzero(cluster_of == cluster)
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(members))).fit(units[members])
        members = members[near.kneighbors(units[members])[0].mean(axis=1).argsort()]
        is_small, held, unknown = len(members) < SMALLEST, is_known[members].sum(), members[~is_known[members]]
        ranked += [((is_small, held + place, -len(members)), number) for place, number in enumerate(unknown.tolist())]
    return [number for _, number in sorted(ranked)[:count]]


def mixed(features: Array, probabilities: Array, is_known: Array, count: int, seed: int = 0) -> list[int]:
    """Return the texts in the middle of clusters of those whose two likeliest classes are nearly as likely.

    So uncertain texts are not all alike (Zhdanov 2019).

    Args:
        features: Those of all texts, (texts, width).
        probabilities: Those of the classes, (texts, classes).
        is_known: Which texts have a label, (texts,).
    """
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    doubtful = np.flatnonzero(~is_known)[np.argsort((first - second)[~is_known])][: DOUBTFUL * count]
    units, doubts = normalize(features[doubtful]), (1 + second - first)[doubtful]
    kmeans = KMeans(count, n_init=1, random_state=seed).fit(units, sample_weight=doubts)
    middle = pairwise_distances_argmin(kmeans.cluster_centers_, units)
    return doubtful[list(dict.fromkeys([*middle, *range(len(doubtful))]))[:count]].tolist()


def regression_of(features: Array, labels: Sequence[str]) -> tuple[Array, Any]:
    """Return what `finetune=few_labels` solves a head by: standardised features, and a regression of labels."""
    from ulmfit_style.training import solving

    penalty = solving.AFTER_CONTRAST * len(set(labels)) / len(labels)
    return solving.standard_scaler(features).transform(features), LogisticRegression(C=penalty, max_iter=1000)


def _merge(resolved: Resolved, task: LabelTask, given: str) -> None:
    """Check the rows of a file that was filled in, with those that there are, and say what they bring."""
    source, chosen = f"select.merge={given}", task.path.chosen or ()
    if not (filled := labelled.with_label(task, labelled.read(task, "select.merge", given))):
        raise UserError(f"{source}: no row has a label yet; fill in the column of labels")
    if known := resolved.task.classes([]) or (resolved.rows.classes if resolved.task.path.files() else ()):
        problem = "is in no labelled row; correct it, or name it among all classes: task.labels=[...]"
        labelled.require_known(task, known, filled, source, problem)
    files = dict.fromkeys([*([chosen] if isinstance(chosen, str) else chosen), given])
    path = task.path.model_copy(update={"chosen": tuple(files)})
    after = resolved.variant(task=task.model_copy(update={"path": path}))
    guard.tell(after.findings)
    _outlook(after, *_texts(after)[1:])
    say(f"Next, with the same options: make finetune 'task.path={path}' (this path may stand in the task's YAML)")


def _outlook(resolved: Resolved, features: Array, labels: Array) -> None:
    """Print what a regression on frozen features scores by half of the labels and by all, and what more would bring."""
    right = pd.Series(labels).dropna().astype(str)
    right = right[right.map(right.value_counts()) >= RARE]
    if len(right) < FEWEST or (classes := right.nunique()) < 2 or not resolved.task.is_single_label:
        return
    inputs, regression = regression_of(features[right.index], right.to_list())
    draws = StratifiedShuffleSplit(DRAWS, test_size=max(len(right) // 5, classes), random_state=0)
    scores = learning_curve(regression, inputs, right.to_numpy(), train_sizes=[0.5, 1.0], cv=draws)[2]
    by_half, by_all = np.nanmean(scores, axis=1)
    measured = f"accuracy {by_half:.3f} by half of them, {by_all:.3f} by all"
    say(f"{finished.FROZEN}, cross-validated on {len(right):,} labelled texts: {measured}")
    if by_half < by_all < 1:
        more = min(resolved.config.select.count, len(labels) - len(right))
        gain = (1 - by_all) * (1 - ((1 - by_all) / (1 - by_half)) ** np.log2(1 + more / len(right)))
        say(f"If it goes on so, {more:,} more bring about {100 * gain:+.1f} points; test rows tell more.")
