"""ensemble: one directory of finished models that answers by the mean of their answers, scored beside each of them."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ulmfit_style.analysis import comparison, estimate
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json, write_json
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute import processes
from ulmfit_style.config.section import MODEL_SECTIONS
from ulmfit_style.console import say
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import checkpoints
from ulmfit_style.publishing import export
from ulmfit_style.recipe import load
from ulmfit_style.resolved import Resolved, Step

OPTION = "ensemble.members"


def own(resolved: Resolved) -> Resolved:
    """Return the config with the options of the first member, but for a task that was chosen."""
    if not resolved.config.ensemble.members:
        return resolved
    made, chosen = load(_directories(resolved)[0] / RECIPE), resolved.config.task
    sections = {name: getattr(made, name) for name in MODEL_SECTIONS}
    return resolved.variant(**sections | ({} if chosen in (None, compose().task) else {"task": chosen}))


def _directories(resolved: Resolved) -> list[Path]:
    names, runs = resolved.config.ensemble.members, resolved.config.runs
    return [checkpoints.find_finetuned(name, OPTION, runs, is_single=True) for name in names]


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that the members answer the same question with the same labels, and have not learnt what is scored.

    Raises:
        UserError: if not, or there are fewer than two.
    """
    config, names, directories = resolved.config, resolved.config.ensemble.members, _directories(resolved)
    if len({directory.resolve() for directory in directories}) < max(2, len(names)):
        raise UserError(f"{OPTION}: an ensemble takes two or more different models: {OPTION}=[forward,backward]")
    if (config.runs / config.name / "finetune").exists():
        raise UserError(f"name={config.name} is the name of a fine-tuned model; add name=<another>")
    if not resolved.task.scores_whole_texts:
        kind = f"{type(resolved.task).__name__} has no probabilities or numbers of whole texts to average"
        raise UserError(f"{OPTION}: {kind}; name models that classify texts, or answer with a number")
    for name, directory in zip(names, directories, strict=True):
        if problem := _problem(resolved, directory):
            raise UserError(f"{OPTION}={name}: {problem}")
        if not (directory / predictions.LEARNT).exists():
            say(f"{OPTION}={name}: holds no {predictions.LEARNT}, so make sure yourself that it learnt no test row")


def _problem(resolved: Resolved, directory: Path) -> str | None:
    """Return why a model cannot be a member, and what to do; None if it can."""
    task, rows, theirs = resolved.task, resolved.rows, load(directory / RECIPE).require_task()
    kinds = [f"{type(one).__name__} by {' and '.join(one.inputs())}" for one in (theirs, task)]
    if kinds[0] != kinds[1]:
        return f"was trained on {kinds[0]}, and the task is {kinds[1]}; name models of one kind"
    labels = read_json(directory / METRICS)["train"]["classes"]
    if set(labels) != set(rows.classes):
        return f"knows the labels {listed(labels)}, and the task has {listed(rows.classes)}; name models of the same"
    learnt = set(read_json(path)) if (path := directory / predictions.LEARNT).exists() else set()
    scored = [*rows.validation, *rows.test]
    count = sum(bool(rows.folds) or predictions.text_digest(task, row) in learnt for row in scored)
    remedy = "train all members on the same split, with task.folds=0"
    return f"learnt {count:,} of the {len(scored):,} rows that would be scored; {remedy}" if count else None


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the answers and their scores depend on."""
    members = [resolved.finetuned(name, OPTION).identity for name in resolved.config.ensemble.members]
    task = {"kind": type(resolved.task).__name__, **resolved.task.determinants()}
    return {"init": {"members": digest(members)[:16]}, "members": members, "task": task, "data": resolved.rows.digest}


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the models: each is scored in the mean, and on the test rows by itself."""
    rows = [*resolved.rows.validation, *resolved.rows.test, *resolved.rows.test]
    return len(resolved.config.ensemble.members) * estimate.tokens(resolved, rows)


def run(step: Step, directory: Path) -> None:
    """Take the models, and score their mean, and each on the test rows."""
    from ulmfit_style.predictor import Predictor

    rows, sources = step.resolved.rows, _directories(step.resolved)
    names = {f"member-{number}": name for number, name in enumerate(step.config.ensemble.members, start=1)}
    if processes.is_main():
        for source, folder in zip(sources, names, strict=True):
            (directory / folder).mkdir(exist_ok=True)
            # transformers looks for the code of a model beside the folders of the members.
            for path in filter(lambda path: export.goes(path.name), source.iterdir()):
                shutil.copyfile(path, (directory if path.suffix == ".py" else directory / folder) / path.name)
    processes.wait()
    mean = Predictor(str(directory), option=OPTION).scorer(step.resolved.task)
    asked = {"validation": (mean, rows.validation), "test": (mean, rows.test)}
    asked |= {name: (one, rows.test) for name, one in zip(names, (replace(mean, others=()), *mean.others), strict=True)}
    scored = {title: scorer.score(some, title) for title, (scorer, some) in asked.items() if some}
    if not processes.is_main():
        return
    if scored:
        predictions.write(directory, chain(*(answers for _, answers in scored.values())))
    measured: dict[str, Any] = {title: of_title for title, (of_title, _) in scored.items()}
    members = {
        folder: {"name": f"{folder} ({Path(name).name})" if "/" in name else name, "test": measured.pop(folder, None)}
        for folder, name in names.items()
    }
    of_first = ("task", "metric", "train", "data")
    told = {name: value for name, value in read_json(sources[0] / METRICS).items() if name in of_first}
    write_json(directory / METRICS, {**told, **measured, "members": members})


summarise = comparison.summarise
