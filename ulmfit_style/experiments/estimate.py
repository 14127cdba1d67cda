"""About how long trials take: from a step of the model on this machine first, and from finished trials after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from statistics import mean

from ulmfit_style.config.stages import Model
from ulmfit_style.experiments.study_plan import ArmTrial, StudyPlan
from ulmfit_style.lineage import Resolved
from ulmfit_style.models import checkpoints
from ulmfit_style.stages import resolve

CHARACTERS_PER_TOKEN = 4.5
"""Of English text; this is an estimate."""

FORWARD = 1 / 3
"""What a forward pass costs of a training step."""

OVERHEAD = 2.0
"""Seconds of a trial, and of a sample's reference models, beside training and scoring: loading, fitting, saving."""


def seconds(plan: StudyPlan, missing: Sequence[ArmTrial], finished: Sequence[ArmTrial]) -> float:
    """Return about how long the missing trials take, with the adapted and the reference models that are missing.

    Args:
        finished: Trials that tell how long others of their arm and number of labels take.
    """
    measured: dict[object, list[float]] = {}
    for trial in finished:
        measured.setdefault((trial.arm, trial.sample.labels), []).append(trial.trial.seconds)
    total, adapted = _references(plan), set()
    for trial in missing:
        resolved = trial.trial.resolved
        known = measured.get((trial.arm, trial.sample.labels))
        total += mean(known) if known else _finetuning(resolved)
        if resolved.config.adapt is None or (artefact := resolved.artefact("adapt")).finished:
            continue
        if artefact.fingerprint not in adapted:
            total += _adapting(resolved, resolved.config.adapt.epochs + resolved.config.adapt.head_epochs * FORWARD)
        adapted.add(artefact.fingerprint)
    return total


def _references(plan: StudyPlan) -> float:
    base, samples = resolve(plan.base), plan.samples(plan.base.study.seeds)
    missing = [
        resolved
        for sample in samples
        if not (resolved := resolve(plan.at(plan.base, sample))).artefact("references").finished
    ]
    if "linear" not in plan.base.study.references or base.task.reference() is None or not missing:
        return 0
    texts = sum(len(resolved.rows.train) for resolved in missing) + len(base.rows.test)
    return OVERHEAD * len(missing) + FORWARD * texts * _seconds_per_row(base)


def _finetuning(resolved: Resolved) -> float:
    rows, options = resolved.rows, resolved.config.finetune
    steps = len(rows.train) / options.batch_size * options.epochs
    trained = min(steps, options.max_steps or steps) * options.batch_size
    scored = len(rows.validation) + len(rows.test)
    return OVERHEAD + (trained + scored * FORWARD) * _seconds_per_row(resolved)


def _adapting(resolved: Resolved, passes: float) -> float:
    documents = resolved.corpus.train
    some = [documents[place] for place in range(0, len(documents), max(1, len(documents) // 500))]
    tokens = _tokens(some) / len(some) * len(documents)
    return OVERHEAD + tokens * passes / _tokens_per_second(resolved.config.model)


def _seconds_per_row(resolved: Resolved) -> float:
    """Return about how long one labelled row trains."""
    some = resolved.rows.test[:500]
    tokens = _tokens([text for row in some for text in resolved.task.texts(row)]) / len(some)
    return min(tokens, resolved.config.finetune.max_length) / _tokens_per_second(resolved.config.model)


def _tokens(texts: Sequence[str]) -> float:
    return sum(len(text) / CHARACTERS_PER_TOKEN + 2 for text in texts)


@cache
def _tokens_per_second(model: Model) -> float:
    """Return how many tokens a second an architecture trains on here, by one step after a first one."""
    import torch
    from accelerate import PartialState
    from transformers import AutoConfig, AutoModel

    if model.checkpoint is None:
        config = AutoConfig.for_model(**(model.architecture or {}))
    else:
        config = AutoConfig.from_pretrained(
            checkpoints.resolve(model, "model.checkpoint").directory, trust_remote_code=False
        )
    body = AutoModel.from_config(config).to(PartialState().device)
    ids = torch.full((16, 32), 5, device=body.device)
    taken = 0.0
    for _ in range(2):
        started = time.monotonic()
        body(input_ids=ids).last_hidden_state.sum().backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = time.monotonic() - started
    return ids.numel() / taken
