"""references: simple models on the same rows, which every result has to be held against. They take seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ulmfit_style import checkpoints, lineage
from ulmfit_style.config import Config
from ulmfit_style.console import progress, say
from ulmfit_style.data import labelled
from ulmfit_style.metrics import interval
from ulmfit_style.run import METRICS, write_json

Fitted = Callable[[Sequence[str]], Sequence[str]]
"""Labels for texts."""


def run(config: Config) -> Path:
    """Fit and score the reference models, unless it was done, and return the directory of their scores."""
    return lineage.references(config).make(partial(_references, config), config.recipe())


def _references(config: Config, directory: Path) -> None:
    task = lineage.required_task(config)
    rows = labelled.load(task)
    texts, targets = [task.document(row) for row in rows.train], [task.target(row) for row in rows.train]
    test, right = [task.document(row) for row in rows.test], [task.target(row) for row in rows.test]
    models: dict[str, Callable[[], Fitted]] = {
        "TF-IDF + logistic regression": lambda: _tfidf(texts, targets),
        "frozen features + logistic regression": lambda: _frozen(config, texts, targets),
    }
    found = {}
    for name, fit in models.items():
        answers = [{"label": label} for label in fit()(test)]
        scores = task.score(answers, right)
        low, high = interval(task.points(answers, right))
        found[name] = {"rows": len(test), "scores": scores, "interval": [low, high]}
        say(f"  {name}: {task.metric} {scores[task.metric]:.3f} (95 % interval {low:.3f} to {high:.3f})")
    write_json(directory / METRICS, {"metric": task.metric, "test": found})


def _tfidf(texts: Sequence[str], targets: Sequence[str]) -> Fitted:
    """Fit logistic regression on TF-IDF weights of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000))
    model.fit(texts, targets)
    return lambda unseen: list(model.predict(unseen))


def _frozen(config: Config, texts: Sequence[str], targets: Sequence[str]) -> Fitted:
    """Fit logistic regression on the checkpoint's last hidden states, averaged over a text's tokens."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel, AutoTokenizer

    source = checkpoints.resolve(config.model).directory
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    body = AutoModel.from_pretrained(source, use_safetensors=True, trust_remote_code=False).eval()
    features = partial(_features, body, tokenizer, config.finetune.max_length)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features(texts), targets)
    return lambda unseen: list(model.predict(features(unseen)))


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
