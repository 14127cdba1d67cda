"""ensemble: one directory of finished models that answers by the mean of their answers, scored beside each of them."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ulmfit_style.analysis.estimate import tokens
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import MANIFEST, METRICS, RECIPE, read_json, write_json
from ulmfit_style.artefacts.fingerprint import digest
from ulmfit_style.cli.compose import compose
from ulmfit_style.compute import processes
from ulmfit_style.config.section import MODEL_SECTIONS
from ulmfit_style.console import say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError, listed
from ulmfit_style.publishing import export
from ulmfit_style.recipe import load
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.results import finished, scores, terminal

OPTION = "ensemble.members"


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the one step, whose config is that of the first member."""
    return [Step(stage, _as_first(resolved), f"{stage.name}: {stage.noun}")]


def _as_first(resolved: Resolved) -> Resolved:
    """Return the config with the options of the first member, but for a task that was chosen."""
    config, made = resolved.config, load(_directories(resolved)[0] / RECIPE)
    sections = {name: getattr(made, name) for name in MODEL_SECTIONS}
    if config.task is not None and config.task != compose().task:
        sections["task"] = config.task
    return resolved.variant(**sections)


def _directories(resolved: Resolved) -> list[Path]:
    return [resolved.finetuned(name, OPTION).directory for name in resolved.config.ensemble.members]


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that the members answer the same question with the same labels, and have not learnt the test rows.

    Raises:
        UserError: if not, or there are fewer than two.
    """
    names = resolved.config.ensemble.members
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"ensemble: of which models? Say {OPTION}=[forward,backward], two or more, each another one")
    resolved = _as_first(resolved)
    task, directories = resolved.task, _directories(resolved)
    classes = [read_json(directory / METRICS)["train"]["classes"] for directory in directories]
    if not task.scores_whole_texts:
        raise UserError(f"{OPTION}: {type(task).__name__} has no probabilities of whole texts that could be averaged")
    for name, directory, known in zip(names, directories, classes, strict=True):
        theirs = load(directory / RECIPE).require_task()
        kinds = [f"{type(one).__name__} of {' and '.join(one.inputs())}" for one in (theirs, task)]
        if kinds[0] != kinds[1]:
            problem = f"was trained on {kinds[0]}, and the task is {kinds[1]}; name models of one kind"
        elif set(known) != set(classes[0]):
            problem = (
                f"has the labels {listed(known)}, and {names[0]} has {listed(classes[0])}; name models of the same"
            )
        else:
            problem = _seen(resolved, name, directory) or ""
        if problem:
            raise UserError(f"{OPTION}={name}: {problem}")
    problem = f"is one that the models do not know (they know: {listed(classes[0])})"
    labelled.require_known(task, classes[0], resolved.rows.test, "ensemble: the test rows", problem)


def _seen(resolved: Resolved, name: str, directory: Path) -> str | None:
    """Return how many test rows a member has learnt, and what to do; None where it is none, or it does not tell."""
    task, test = resolved.task, resolved.rows.test
    if not (directory / predictions.LEARNT).exists():
        say(f"{OPTION}={name}: does not tell what it was trained on ({predictions.LEARNT}); see that it is no test row")
        return None
    learnt = set(read_json(directory / predictions.LEARNT))
    count = sum(predictions.text_digest(task, row) in learnt for row in test)
    how = "train it on the same files and split (task.folds=0)"
    return f"was trained on {count:,} of the {len(test):,} test rows; {how}" if count else None


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the answers and their scores depend on."""
    members = {}
    for number, name in enumerate(resolved.config.ensemble.members, start=1):
        found = resolved.finetuned(name, OPTION)
        is_near = found.directory.resolve().parent == resolved.config.runs.resolve()
        made = {"finetune": read_json(found.directory / MANIFEST)["fingerprint"]} if is_near else found.identity
        members[f"member-{number}"] = made
    resolved = _as_first(resolved)
    return {
        "init": {"members": digest(members)[:16]},
        "members": members,
        "task": {"kind": type(resolved.task).__name__, **resolved.task.determinants()},
        "data": resolved.rows.digest,
    }


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the models: each is scored by itself, and in the mean."""
    rows = [*resolved.rows.validation, *2 * [*resolved.rows.test]]
    return len(resolved.config.ensemble.members) * tokens(resolved, rows)


def run(step: Step, directory: Path) -> None:
    """Take the models, and score their mean, and each on the test rows."""
    from ulmfit_style.predictor import Predictor

    resolved, task, directories = step.resolved, step.resolved.task, _directories(step.resolved)
    folders = [directory / f"member-{number}" for number, _ in enumerate(directories, start=1)]
    if processes.is_main():
        for source, folder in zip(directories, folders, strict=True):
            _take(source, folder)
    processes.wait()
    scorer = Predictor(str(directory), option=OPTION).scorer(task)
    measured, answered = {}, []
    for split in ("validation", "test"):
        if rows := resolved.rows.split(split):
            measured[split], split_predictions = scorer.score(rows, split)
            answered.append(split_predictions)
    members: dict[str, dict[str, Any]] = {}
    for one, folder, source in zip((replace(scorer, others=()), *scorer.others), folders, directories, strict=True):
        members[folder.name] = {"name": _name(source, resolved.config.runs)}
        if test := resolved.rows.test:
            members[folder.name]["test"], split_predictions = one.score(test, folder.name)
            answered.append(split_predictions)
    if not processes.is_main():
        return
    if answered:
        predictions.write(directory, (one for part in answered for one in part))
    first = read_json(directories[0] / METRICS)
    told = {name: first[name] for name in ("task", "metric", "train", "data")}
    write_json(directory / METRICS, {**told, **measured, "members": members})


def _take(source: Path, folder: Path) -> None:
    """Put the files of a model into a folder, without a second copy on the disk where there can be a link."""
    folder.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        # The code that transformers runs for a model of this package is sought beside the folders of the members.
        copy = (folder.parent if path.suffix == ".py" else folder) / path.name
        if export.goes(path.name) and not copy.exists():
            try:
                os.link(path.resolve(), copy)
            except OSError:
                shutil.copyfile(path, copy)


def _name(directory: Path, runs: Path) -> str:
    """Return what people call a model: the run that links to it, else its directory."""
    links = (link for link in sorted(runs.glob("*/finetune")) if link.resolve() == directory.resolve())
    return next((link.parent.name for link in links), directory.name)


def summarise(resolved: Resolved, stages: Sequence[str]) -> None:
    """Print the scores of the members and of their mean, and what to type next."""
    config = resolved.config
    run = finished.read(resolved.artefact("ensemble").directory, config.name)
    if run.measured:
        metric = run.model.metrics["metric"]
        terminal.show(scores.by_name(metric, run.measured, "The same test rows, answered by"))
        say(scores.highest(metric, run.measured, run.paired))
        for what, difference in run.changes.items():
            say(scores.worth(f"{what} changed {metric} by", difference))
    say(
        f"The ensemble is in {config.runs / config.name / 'ensemble'} ({config.runs / run.model.directory.name}). Next:"
    )
    for rest in ("predict name={} predict.input=<file>", "push name={} hub.repo=my-model hub.dry_run=true"):
        say(f"  make {rest.format(config.name)}")
