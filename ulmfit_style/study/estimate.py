"""About how long trials take: from a step of the model on this machine first, and from finished trials after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from statistics import mean

from ulmfit_style import checkpoints, lineage
from ulmfit_style.config import Config
from ulmfit_style.data import corpus, labelled
from ulmfit_style.options import Model
from ulmfit_style.run import MANIFEST, MEASURED, read_json
from ulmfit_style.study.trials import Plan, Trial

CHARACTERS_A_TOKEN = 4.5
"""Of English text; this is an estimate."""

OVERHEAD = 2.0
"""Seconds of a trial beside training and scoring: loading, saving."""


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
        """Return about how long trials take, with the adapted models that they need and that are not there."""
        missing = {
            artefact.fingerprint: trial.config
            for trial in trials
            if trial.config.adapt is not None and not (artefact := lineage.adapt(trial.config)).finished
        }
        return sum(map(self._of_trial, trials)) + sum(map(_adapting, missing.values()))

    def _of_trial(self, trial: Trial) -> float:
        taken = self._taken.get((trial.arm, trial.labels))
        return mean(taken) if taken else _finetuning(trial.config)


def _finetuning(config: Config) -> float:
    task, options = lineage.required_task(config), config.finetune
    rows = labelled.load(task)
    scored = [*rows.validation, *rows.test]
    length = _tokens([text for row in scored[:500] for text in task.texts(row)]) / len(scored[:500])
    length = min(length, options.max_length)
    steps = len(rows.train) / options.batch_size * options.epochs
    trained = min(steps, options.max_steps or steps) * options.batch_size
    # A forward pass costs a third of a training step.
    return OVERHEAD + (trained + len(scored) / 3) * length / _speed(config.model)


def _adapting(config: Config) -> float:
    assert config.adapt is not None  # only such are asked for
    documents = corpus.load(config.corpus, config.task, config.runs).train
    some = [documents[place] for place in range(0, len(documents), max(1, len(documents) // 500))]
    tokens = _tokens(some) / len(some) * len(documents)
    return OVERHEAD + tokens * (config.adapt.epochs + config.adapt.head_epochs / 3) / _speed(config.model)


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
