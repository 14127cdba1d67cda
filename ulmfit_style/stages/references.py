"""references: simple models on the same rows, which every result has to be held against. They take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style import lineage, processes
from ulmfit_style.artefacts.directory import METRICS, write_json
from ulmfit_style.console import progress, say
from ulmfit_style.data import labelled
from ulmfit_style.recipe import Config

FEATURES = "features.npy"

Featurise = Callable[[Sequence[str], Sequence[str]], tuple[Any, Any]]
"""Features of the training texts, and of unseen ones."""


def run(config: Config) -> Path:
    """Fit and score the reference models, unless it was done, and return the directory of their scores."""
    return lineage.references(config).make(partial(_references, config), config.recipe())


def _references(config: Config, directory: Path) -> None:
    if not processes.is_main():
        return
    task = lineage.required_task(config)
    model, rows = task.reference(), labelled.load(task)
    right = [task.target(row) for row in rows.test]
    simple = [task.baseline_answers(row) for row in rows.test]
    found = {name: task.measure([own[name] for own in simple], right) for name in simple[0]}
    for name, measured in found.items():
        _say(name, task.metric, measured)
    if model is None:
        say("  there are no simple models to be trained for this kind of task")
        write_json(directory / METRICS, {"metric": task.metric, "test": found})
        return
    texts, unseen = ([" ".join(task.texts(row)) for row in split] for split in (rows.train, rows.test))
    targets = [task.target(row) for row in rows.train]
    kinds: dict[str, Featurise] = {"TF-IDF": _tfidf, "frozen features": partial(_frozen, config)}
    for kind, featurise in kinds.items():
        name = f"{kind} + {model.name}"
        features, of_unseen = featurise(texts, unseen)
        answers = model.fit(features, targets)(of_unseen)
        found[name] = task.measure(answers, right)
        _say(name, task.metric, found[name])
    write_json(directory / METRICS, {"metric": task.metric, "test": found})


def _say(name: str, metric: str, measured: Mapping[str, Any]) -> None:
    low, high = measured["interval"]
    say(f"  {name}: {metric} {measured['scores'][metric]:.3f} (95 % interval {low:.3f} to {high:.3f})")


def _tfidf(texts: Sequence[str], unseen: Sequence[str]) -> tuple[Any, Any]:
    """Return the TF-IDF weights of words and word pairs, (texts, terms) and (unseen, terms)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return vectorizer.fit_transform(texts), vectorizer.transform(unseen)


def _frozen(config: Config, texts: Sequence[str], unseen: Sequence[str]) -> tuple[Any, Any]:
    """Return the checkpoint's last hidden states, averaged over a text's tokens: (texts, hidden), (unseen, hidden).

    They are standardised by those of `texts`.
    """
    import torch
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel, AutoTokenizer

    source = lineage.start(config).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    body = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False).eval()
    features = partial(_features, body, tokenizer, config.finetune.max_length)
    kept = lineage.features(config)
    kept.make(lambda directory: np.save(directory / FEATURES, features(unseen)), config.recipe(), alone=True)
    scaler = StandardScaler()
    return scaler.fit_transform(features(texts)), scaler.transform(np.load(kept.directory / FEATURES))


def _features(body: Any, tokenizer: Any, max_length: int, texts: Sequence[str], batch_size: int = 64) -> Any:
    """Return the mean-pooled features of texts: (texts, hidden)."""
    import torch
    from accelerate import PartialState

    body.to(PartialState().device)
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    features = np.zeros((len(texts), body.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), progress("frozen features", len(texts)) as steps:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [encoded[place] for place in places]}, return_tensors="pt").to(
                body.device
            )
            hidden = body(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            features[places] = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
            steps.advance(len(places))
    return features
