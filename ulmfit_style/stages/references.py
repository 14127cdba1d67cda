"""references: simple models on the same rows, which every result has to be held against. They take seconds."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style.analysis.estimate import tokens
from ulmfit_style.artefacts.directory import METRICS, Artefact, write_json
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.console import say
from ulmfit_style.models import checkpoints, tokenizer_pair
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.results.finished import FROZEN
from ulmfit_style.results.parts import Interval
from ulmfit_style.tasks.base import Answer, Row
from ulmfit_style.words import TERM

FEATURES = "features.npy"


def determinants(resolved: Resolved, data: str | None = None) -> dict[str, Any]:
    """Return what the scores of the reference models depend on.

    Args:
        data: The digest of what is read; None for that of the rows.
    """
    return {
        "kind": type(resolved.task).__name__,
        "init": resolved.source_of("adapt").identity,
        "data": data or resolved.rows.digest,
        "max_length": resolved.config.finetune.max_length,
    }


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return what a fine-tuned model is held against: the reference models, and the same without adaptation."""
    if "finetune" not in stages or not resolved.config.compare or not resolved.rows.test:
        return []
    simple = Step(stage, resolved, "references: simple models on the same rows")
    if resolved.config.adapt is None:
        return [simple]
    title = "finetune, not adapted: for comparison"
    return [simple, Step(resolved.stages["finetune"], resolved.variant(adapt=None), title, "finetune-not-adapted")]


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the model."""
    rows = resolved.rows
    return tokens(resolved, [*rows.learnt, *rows.validation, *rows.test]) * max(1, len(rows.folds))


def run(step: Step, directory: Path) -> None:
    """Score the answers that need no training, then fit and score the reference models."""
    task, rows = step.resolved.task, step.resolved.rows
    answers: dict[str, list[Answer]] = defaultdict(list)
    for part in step.resolved.folds or [step.resolved]:
        for name, given in _answers(part, [*part.rows.validation, *part.rows.test]).items():
            answers[name] += given
    metrics: dict[str, Any] = {"metric": task.metric}
    for split, scored, place in (("validation", rows.validation, 0), ("test", rows.test, len(rows.validation))):
        if scored:
            of_split = task.baseline_answers(scored)
            of_split |= {name: given[place : place + len(scored)] for name, given in answers.items()}
            targets = [task.target(row) for row in scored]
            metrics[split] = {name: task.measure(given, targets) for name, given in of_split.items()}
    for name, measured in metrics["test"].items():
        score, interval = measured["scores"][task.metric], Interval(*measured["interval"])
        say(f"  {name}: {task.metric} {score:.3f} (95 % interval {interval})")
    write_json(directory / METRICS, metrics)


def _answers(resolved: Resolved, unseen: Sequence[Row]) -> dict[str, list[Answer]]:
    """Return the answers of the simple models to unseen rows, by the names of the models."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    from ulmfit_style.training import solving

    task, rows = resolved.task, resolved.rows
    if (model := task.reference) is None:
        return {}
    answers: dict[str, list[Answer]] = {}
    named = task.name_rows(rows.classes)
    targets = [task.target(row) for row in rows.learnt]
    texts, texts_unseen, names = ([" ".join(task.texts(row)) for row in of] for of in (rows.learnt, unseen, named))
    frozen, frozen_unseen = features_of(resolved, texts_unseen)
    if named:
        nearest = cosine_similarity(frozen_unseen, frozen(names)).argmax(axis=1)
        answers["class names alone"] = [{task.answer_field: task.target(named[place])} for place in nearest]
    tf_idf = TfidfVectorizer(tokenizer=TERM.findall, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True)
    learnt = frozen(texts)
    scaler = solving.standard_scaler(learnt)
    answers[f"TF-IDF + {model.name}"] = model.fit(tf_idf.fit_transform(texts), targets)(tf_idf.transform(texts_unseen))
    answers[f"{FROZEN} + {model.name}"] = model.fit(scaler.transform(learnt), targets)(scaler.transform(frozen_unseen))
    return answers


def features_of(resolved: Resolved, unseen: Sequence[str]) -> tuple[Callable[[Sequence[str]], Any], Any]:
    """Return what computes the frozen features of texts by the checkpoint, and those of `unseen`, (unseen, hidden).

    They are its last hidden states, averaged over a text's tokens.
    """
    from accelerate import PartialState
    from transformers import AutoModel

    from ulmfit_style.training.scoring import mean_features

    source, config = resolved.source_of("adapt").directory, resolved.config
    model, tokenizer = checkpoints.load_model(AutoModel, source).model, tokenizer_pair.read(source)
    body = model.get_encoder() if model.config.is_encoder_decoder else model
    features = partial(mean_features, body.to(PartialState().device), tokenizer, config.finetune.max_length)
    # The references of all samples of labels share the features of the rows that are scored.
    kept = Artefact("features", determinants(resolved, digest(list(unseen))), config.runs)
    kept.make(lambda directory: np.save(directory / FEATURES, features(unseen)), config.recipe(), alone=True)
    return features, np.load(kept.directory / FEATURES)
