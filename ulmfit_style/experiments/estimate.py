"""About how long trials take: from a step of the model on this machine first, and from finished trials after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from statistics import mean

from ulmfit_style import lineage
from ulmfit_style.config.stages import Model
from ulmfit_style.data import corpus, labelled
from ulmfit_style.experiments.study_plan import ArmTrial, StudyPlan
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config

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
        config = trial.trial.config
        known = measured.get((trial.arm, trial.sample.labels))
        total += mean(known) if known else _finetuning(config)
        if config.adapt is not None and not (artefact := lineage.adapt(config)).finished:
            if artefact.fingerprint not in adapted:
                total += _adapting(config, config.adapt.epochs + config.adapt.head_epochs * FORWARD)
            adapted.add(artefact.fingerprint)
    return total


def _references(plan: StudyPlan) -> float:
    study, task = plan.base.study, lineage.required_task(plan.base)
    configs = [plan.at(plan.base, sample) for sample in plan.samples(study.seeds)]
    missing = [config for config in configs if not lineage.references(config).finished]
    if "linear" not in study.references or task.reference() is None or not missing:
        return 0
    texts = sum(len(labelled.load(lineage.required_task(config)).train) for config in missing)
    texts += 0 if lineage.features(plan.base).finished else len(labelled.load(task).test)
    return OVERHEAD * len(missing) + FORWARD * texts * _seconds_per_row(plan.base)


def _finetuning(config: Config) -> float:
    rows, options = labelled.load(lineage.required_task(config)), config.finetune
    steps = len(rows.train) / options.batch_size * options.epochs
    trained = min(steps, options.max_steps or steps) * options.batch_size
    scored = len(rows.validation) + len(rows.test)
    return OVERHEAD + (trained + scored * FORWARD) * _seconds_per_row(config)


def _adapting(config: Config, passes: float) -> float:
    documents = corpus.load(config.corpus, config.task, config.runs).train
    some = [documents[place] for place in range(0, len(documents), max(1, len(documents) // 500))]
    return OVERHEAD + _tokens(some) / len(some) * len(documents) * passes / _tokens_per_second(config.model)


def _seconds_per_row(config: Config) -> float:
    """Return about how long one labelled row trains."""
    task = lineage.required_task(config)
    some = labelled.load(task).test[:500]
    tokens = _tokens([text for row in some for text in task.texts(row)]) / len(some)
    return min(tokens, config.finetune.max_length) / _tokens_per_second(config.model)


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
        config = AutoConfig.from_pretrained(checkpoints.resolve(model).directory, trust_remote_code=False)
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
