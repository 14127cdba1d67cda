"""references: simple models on the same rows, which every result has to be held against. They take seconds."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style.artefacts.directory import METRICS, Artefact, write_json
from ulmfit_style.console import progress, say
from ulmfit_style.data import labelled
from ulmfit_style.models import checkpoints
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.tasks.base import Answer

FEATURES = "features.npy"


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the scores of the reference models depend on."""
    return {
        "kind": type(resolved.task).__name__,
        "init": resolved.adapt_source.identity,
        "data": resolved.rows.digest,
        "max_length": resolved.config.finetune.max_length,
    }


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return what a fine-tuned model is held against: the reference models, and the same without adaptation."""
    if "finetune" not in stages or not resolved.config.compare:
        return []
    simple = Step(stage, resolved, "references: simple models on the same rows")
    if resolved.config.adapt is None:
        return [simple]
    title = "finetune, not adapted: for comparison"
    return [simple, Step(resolved.stages["finetune"], resolved.variant(adapt=None), title, "finetune-not-adapted")]


def run(step: Step, directory: Path) -> None:
    """Score the answers that need no training, then fit and score the reference models."""
    resolved, task = step.resolved, step.resolved.task
    model, answers = task.reference(), defaultdict[str, list[Answer]](list)
    if model is None:
        say("  there are no simple models to be trained for this kind of task")
    for part in resolved.folds or [resolved]:
        rows = part.rows
        for answer in map(task.baseline_answers, rows.test):
            for name in answer:
                answers[name].append(answer[name])
        if model is None:
            continue
        texts, unseen = ([" ".join(task.texts(row)) for row in split] for split in (rows.train, rows.test))
        targets = [task.target(row) for row in rows.train]
        for name, featurise in (("TF-IDF", _tfidf), ("frozen features", partial(_frozen, part))):
            features, features_of_unseen = featurise(texts, unseen)
            answers[f"{name} + {model.name}"] += model.fit(features, targets)(features_of_unseen)
    right = [task.target(row) for row in resolved.rows.test]
    measured = {name: task.measure(given, right) for name, given in answers.items()}
    for name, scores in measured.items():
        low, high = scores["interval"]
        score = scores["scores"][task.metric]
        say(f"  {name}: {task.metric} {score:.3f} (95 % interval {low:.3f} to {high:.3f})")
    write_json(directory / METRICS, {"metric": task.metric, "test": measured})


def _tfidf(texts: Sequence[str], unseen: Sequence[str]) -> tuple[Any, Any]:
    """Return the TF-IDF weights of words and word pairs, (texts, terms) and (unseen, terms)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return vectorizer.fit_transform(texts), vectorizer.transform(unseen)


def _frozen(resolved: Resolved, texts: Sequence[str], unseen: Sequence[str]) -> tuple[Any, Any]:
    """Return the checkpoint's last hidden states, averaged over a text's tokens: (texts, hidden), (unseen, hidden).

    They are standardised by those of `texts`.
    """
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel

    source, config = resolved.adapt_source.directory, resolved.config
    body, tokenizer = checkpoints.load_model(AutoModel, source).model.eval(), checkpoints.tokenizer(source)
    features = partial(_features, body, tokenizer, config.finetune.max_length)
    # The references of all samples of labels share the features of the test rows.
    test_digest = labelled.digest_of(resolved.task, resolved.rows.test)
    kept = Artefact("features", {**determinants(resolved), "data": test_digest}, config.runs)
    kept.make(lambda directory: np.save(directory / FEATURES, features(unseen)), config.recipe(), alone=True)
    scaler = StandardScaler()
    return scaler.fit_transform(features(texts)), scaler.transform(np.load(kept.directory / FEATURES))


def _features(body: Any, tokenizer: Any, max_length: int, texts: Sequence[str], batch_size: int = 64) -> Any:
    """Return the mean-pooled features of texts: (texts, hidden)."""
    import torch
    from accelerate import PartialState

    body.to(PartialState().device)
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda place: len(encoded[place]))
    features = np.zeros((len(texts), body.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), progress("frozen features", len(texts)) as steps:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            padded = tokenizer.pad({"input_ids": [encoded[place] for place in places]}, return_tensors="pt")
            batch = padded.to(body.device)
            hidden = body(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            features[places] = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
            steps.advance(len(places))
    return features
