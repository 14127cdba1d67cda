"""study: named arms, each over the same seeds and numbers of labels, and by how much they differ.

Trials run one after another in this process; what is there already is not made again.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from statistics import mean

from ulmfit_style import chain
from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.console import muted, say
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import study_plan, study_report, trials
from ulmfit_style.experiments.study_plan import Choices, Labels, Run, Searched, StudyPlan
from ulmfit_style.experiments.study_report import Result
from ulmfit_style.resolved import Step
from ulmfit_style.stages.table import STAGES, resolve


def run(overrides: Sequence[str]) -> None:
    """Run a study, or go on with it, and print its results.

    Raises:
        UserError: if an arm is wrong, before anything is trained; or in the end, if a trial failed.
    """
    plan = study_plan.plan(overrides)
    study, search = plan.base.study, plan.search()
    axes = f"{len(study.arms)} arms x {len(plan.labels)} numbers of labels x {len(study.seeds)} seeds"
    total = len(search) + len(plan.reported({}))
    say(f"study: {total} runs: {axes}{f', and {len(search)} to search' if search else ''}", style="bold")
    made: list[Result] = []
    choices = best_of_search([_make(plan, run, made, total) for run in search])
    results = [_make(plan, run, made, total) for run in plan.reported(choices)]
    study_report.write(plan, choices, [*_references(plan), *results])
    if failed := sum(bool(result.error) for result in results):
        raise UserError(f"study: {failed} of {len(results)} runs failed; the same command tries them again")


def _make(plan: StudyPlan, run: Run, made: list[Result], total: int) -> Result:
    """Make the model of a run, unless it is there, and return its scores, or its error if it failed.

    Args:
        made: The results of the runs before it, to which its own is added; the weights of the best are kept.
        total: How many runs there will be.
    """
    resolved = resolve(plan.at(plan.arms[run.arm, run.searched], run.labels, run.seed))
    metric, model = resolved.task.metric, resolved.artefact("finetune")
    if is_new := not model.measured:
        say(f"[{len(made) + 1}/{total}] {run.title}", style="bold")
    error = trials.make(resolved, run.link)
    result = Result(run, len(resolved.rows.train), model.directory, error=error or "")
    if error is None:
        measured = read_json(model.directory / METRICS)
        score, validation = (measured[split]["scores"][metric] for split in ("test", "validation"))
        result = replace(result, score=score, validation=validation)
        if is_new:
            say(f"  {metric} {score:.3f} on the test rows")
    made.append(result)
    if scored := [other for other in made if not other.error]:
        best = max(scored, key=lambda other: other.validation)
        directories = [other.directory for other in scored]
        trials.discard(plan.base.study.keep_weights, directories, [best.directory], plan.folder)
    return result


def best_of_search(results: Sequence[Result]) -> Choices:
    """Return the combination of each arm at each number of labels that scores best on the validation rows.

    Raises:
        UserError: if a trial of the search failed: the choice among the others could be another one.
    """
    scores: dict[tuple[str, Labels], dict[Searched, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.error:
            raise UserError(f"study.search: {result.run.title} failed: {result.error}")
        scores[result.run.arm, result.run.labels][result.run.searched].append(result.validation)
    return {key: max(tried, key=lambda searched: mean(tried[searched])) for key, tried in scores.items()}


def _references(plan: StudyPlan) -> Iterator[Result]:
    """Fit the reference models on each sample, unless that was done, and yield their scores."""
    if "linear" not in plan.base.study.references:
        return
    for seed, labels in product(plan.base.study.seeds, plan.labels):
        run, resolved = Run("reference models", labels, seed), resolve(plan.at(plan.base, labels, seed))
        step = Step(STAGES["references"], resolved, run.title, run.link)
        with muted() if step.artefact.finished else nullcontext():
            chain.make_in_this_process([step], plan.folder)
        metrics = read_json(step.artefact.directory / METRICS)
        for name, measured in metrics["test"].items():
            score = measured["scores"][metrics["metric"]]
            yield Result(replace(run, arm=name), len(resolved.rows.train), step.artefact.directory, score)
