"""About how long trials take: from a step of the model on this machine first, and from finished trials after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache, cached_property
from statistics import mean

from ulmfit_style import lineage
from ulmfit_style.artefacts.directory import MANIFEST, MEASURED, read_json
from ulmfit_style.config.stages import Model
from ulmfit_style.data import corpus, labelled
from ulmfit_style.experiments.study.trials import Plan, Trial
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

CHARACTERS_A_TOKEN = 4.5
"""Of English text; this is an estimate."""

FORWARD = 1 / 3
"""What a forward pass costs of a training step."""

OVERHEAD = 2.0
"""Seconds of a trial, and of a sample's reference models, beside training and scoring: loading, fitting, saving."""


class Estimate:
    """Seconds that trials take."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._taken: dict[tuple[str, object], list[float]] = {}

    def learn(self, trial: Trial) -> None:
        """Take from a finished trial how long others of its arm take."""
        directory = trial.artefact.directory
        manifest = directory / MANIFEST if (directory / MANIFEST).exists() else directory / MEASURED
        self._taken.setdefault((trial.arm, trial.labels), []).append(read_json(manifest)["seconds"])

    def seconds(self, trials: Sequence[Trial]) -> float:
        """Return about how long trials take, with what is not there of the adapted and the reference models."""
        missing = {
            artefact.fingerprint: trial.config
            for trial in trials
            if trial.config.adapt is not None and not (artefact := trial.resolved.artefact("adapt")).finished
        }
        return sum(map(self._of_trial, trials)) + sum(map(_adapting, missing.values())) + self._of_references

    def _of_trial(self, trial: Trial) -> float:
        taken = self._taken.get((trial.arm, trial.labels))
        return mean(taken) if taken else _finetuning(trial.config)

    @cached_property
    def _of_references(self) -> float:
        """Seconds that the missing reference models take, which are fitted when all trials are done."""
        plan = self._plan
        study, task = plan.base.study, lineage.required_task(plan.base)
        samples = [plan.at(plan.base, labels, seed) for labels in plan.labels for seed in study.seeds]
        missing = [config for config in samples if not resolve(config).artefact("references").finished]
        fitted, texts = 0, 0.0
        if "linear" in study.references and task.reference() is not None:
            fitted = len(missing)
            texts += FORWARD * sum(len(labelled.load(lineage.required_task(config)).train) for config in missing)
            if missing:
                texts += FORWARD * len(labelled.load(task).test)
        return OVERHEAD * fitted + texts * _length(plan.base) / _speed(plan.base.model) if texts else 0.0


def _finetuning(config: Config) -> float:
    task, options = lineage.required_task(config), config.finetune
    rows = labelled.load(task)
    scored = len(rows.validation) + len(rows.test)
    steps = len(rows.train) / options.batch_size * options.epochs
    trained = min(steps, options.max_steps or steps) * options.batch_size
    return OVERHEAD + (trained + scored * FORWARD) * _length(config) / _speed(config.model)


def _length(config: Config) -> float:
    """Return how many tokens are read of a row."""
    task = lineage.required_task(config)
    some = labelled.load(task).test[:500]
    return min(_tokens([text for row in some for text in task.texts(row)]) / len(some), config.finetune.max_length)


def _adapting(config: Config) -> float:
    assert config.adapt is not None  # only such are asked for
    documents = corpus.load(config.corpus, config.task, config.runs).train
    some = [documents[place] for place in range(0, len(documents), max(1, len(documents) // 500))]
    tokens = _tokens(some) / len(some) * len(documents)
    return OVERHEAD + tokens * (config.adapt.epochs + config.adapt.head_epochs * FORWARD) / _speed(config.model)


def _tokens(texts: Sequence[str]) -> float:
    return sum(len(text) / CHARACTERS_A_TOKEN + 2 for text in texts)


@cache
def _speed(model: Model) -> float:
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
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        body(input_ids=ids).last_hidden_state.sum().backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
    return ids.numel() / seconds
