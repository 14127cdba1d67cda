"""The queue of a sweep: which trials are next, which ones lost their process, and what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from statistics import mean
from threading import Event, Thread
from typing import Any, final

import optuna
from filelock import FileLock, Timeout
from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from ulmfit_style import lineage
from ulmfit_style.config.experiments import Sweep
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import say
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.experiments import search_space, trial_storage
from ulmfit_style.experiments.trials import discard
from ulmfit_style.lineage import Resolved
from ulmfit_style.recipe import Config
from ulmfit_style.stages import resolve

DIED = "its process died, twice"
"""Why a trial failed that died when it was run again."""


@final
@dataclass(frozen=True)
class Outcome:
    """What became of a trial: `COMPLETE`, `PRUNED` or `FAIL`."""

    state: TrialState
    scores: Sequence[float] = ()
    """That of each seed, on the validation rows."""
    intervals: Sequence[Sequence[float]] = ()
    """The 95 % interval of each, over these rows."""
    artefacts: Sequence[str] = ()
    """The directory's name of the fine-tuned model of each seed."""
    error: str = ""


def folder_name(config: Config) -> str:
    """Return what the folder of a sweep under `runs`, and its study in a storage, is called."""
    return f"{config.name}-sweep"


def ranked_by(config: Config) -> str:
    """Return the name of the score that the trials of a sweep are ranked by.

    Raises:
        UserError: if it is none of the task's scores that are better when higher.
    """
    task, metric = lineage.required_task(config), config.sweep.metric if config.sweep else None
    rankings = (task.metric, *task.rankings)
    if metric not in (None, *rankings):
        kind = f"{type(task).__name__} ranks by {', '.join(rankings)}"
        raise UserError(f"sweep.metric={metric}: {kind}{nearest(str(metric), rankings)}")
    return metric or task.metric


def begun(study: Study) -> list[FrozenTrial]:
    """Return the trials that count towards `sweep.trials`: not those that were run again."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in repeated]


def ranked(study: Study) -> list[FrozenTrial]:
    """Return the trials that were trained to the end, the best one first."""
    return sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: -trial.values[0])


def failed(study: Study) -> list[FrozenTrial]:
    """Return the trials that failed."""
    return [trial for trial in begun(study) if trial.state == TrialState.FAIL]


def count(study: Study) -> Counter[TrialState]:
    """Return how many trials there are of each state."""
    return Counter(trial.state for trial in begun(study))


def options_of(trial: FrozenTrial) -> str:
    """Return what a trial tries, with three digits of each number."""
    shown = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in trial.params.items()}
    return ("the recipe: " if "default" in trial.user_attrs else "") + " ".join(search_space.overrides(shown))


def error_of(trial: FrozenTrial) -> str:
    """Return why a trial failed."""
    return str(trial.user_attrs.get("error") or DIED)


def run_again(study: Study, trial: FrozenTrial, deaths: int = 1) -> None:
    """Put a trial that has ended without a result into the queue, with what it reported; but not one that died twice.

    Optuna's `RetryHeartbeatStaleTrialCallback` would do, but counts a stop by Ctrl-C as a death.

    Args:
        deaths: How many deaths this was: none where a signal stopped it.
    """
    total = deaths + trial.user_attrs.get("deaths", 0)
    if deaths:
        say(f"trial {trial.number}: its process died{'; it is run again' if total == 1 else ''}")
    if total > 1:
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values,
            system_attrs=trial.system_attrs,  # of the first trial, its values
            user_attrs={**trial.user_attrs, "deaths": total, "again": trial.number},
        )
    )


@final
class TrialQueue:
    """A process's view of the study of a sweep, which is opened, or begun with the recipe as its first trial.

    Args:
        overrides: Those of the sweep.

    Raises:
        UserError: if the study is one of another recipe or space, or its storage cannot be opened.
    """

    def __init__(self, resolved: Resolved, sweep: Sweep, overrides: Sequence[str]) -> None:
        config = resolved.config
        self.resolved, self.sweep, self.folder = resolved, sweep, config.runs / folder_name(config)
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe, settings = search_space.of_recipe(config, overrides, sweep.space), self._settings()
        self.storage = trial_storage.open_storage(sweep, self.folder, run_again)
        self._began, self._space_is_exhausted = time.monotonic(), False
        self._locks: dict[int, FileLock] = {}
        """Those that show other processes which trials this one runs, by their numbers."""
        with self._alone():
            self.study = optuna.create_study(
                study_name=self.folder.name,
                storage=self.storage,
                sampler=trial_storage.sampler(sweep),
                pruner=trial_storage.pruner(sweep),
                direction="maximize",
                load_if_exists=True,
            )
            if (before := self.study.user_attrs.get("settings")) is None:
                self.study.set_user_attr("overrides", list(overrides))
                self.study.set_user_attr("settings", settings)
                self.study.enqueue_trial(recipe, user_attrs={"default": True}, skip_if_exists=True)
                return
        changes = [change for name in settings for change in lineage.changes(before[name], settings[name], name)]
        if changes:
            other = "there is a sweep of that name, and what it compares is not what you ask for"
            remedy = "begin a new one with name=<another name>, or take these back"
            raise UserError("\n  - ".join([f"name={config.name}: {other}; {remedy}:", *changes]))

    @property
    def hours_left(self) -> float | None:
        """Hours in which this process may begin trials; None without a bound."""
        if self.sweep.max_hours is None:
            return None
        return max(0.0, self.sweep.max_hours - (time.monotonic() - self._began) / 3600)

    def take(self) -> list[optuna.Trial]:
        """Return the trials that this process is to run now; none where all are done, running or out of time.

        Raises:
            UserError: if too many have failed.
        """
        sweep = self.sweep
        with self._alone():
            self._requeue_dead()
            if len(failures := failed(self.study)) > sweep.max_failures:
                many = f"{len(failures)} trials failed, more than sweep.max_failures={sweep.max_failures}"
                last = f"the last one, trial {failures[-1].number}: {error_of(failures[-1])}"
                raise UserError(f"sweep: {many}; {last}")
            if self._space_is_exhausted or self.hours_left == 0:
                return []
            left = sweep.parallel if sweep.trials is None else sweep.trials - len(begun(self.study))
            try:
                return [self._ask() for _ in range(min(sweep.parallel, left))]
            except ImportError as error:
                raise UserError(f"sweep.sampler={sweep.sampler['name']}: {error}") from error

    @contextmanager
    def alive(self, trials: Sequence[optuna.Trial]) -> Iterator[None]:
        """Give signs of life of trials while the block runs; if a signal ends it, they run again: they did not die."""
        stop = Event()

        def beat() -> None:
            while isinstance(self.storage, RDBStorage) and not stop.wait(self.storage.get_heartbeat_interval()):
                with suppress(*trial_storage.CONNECTION_ERRORS):  # the next one may come through
                    for trial in trials:
                        self._beat(trial.number)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            with self._alone():
                for trial in trials:
                    self._tell(trial.number, TrialState.FAIL)
                    run_again(self.study, self.study.trials[trial.number], deaths=0)
            raise
        finally:
            stop.set()
            thread.join()

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Record what became of a trial, unless it was taken for dead, and discard weights that are not kept."""
        with self._alone():
            if not self.study.trials[trial.number].state.is_finished():
                for name, value in asdict(outcome).items():
                    trial.set_user_attr(name, value)
                score = mean(outcome.scores) if outcome.state == TrialState.COMPLETE else None
                self._tell(trial.number, outcome.state, score)
            self._locks.pop(trial.number).release()
            (self.folder / f".trial-{trial.number}.lock").unlink(missing_ok=True)
            made, best = (
                [self.resolved.config.runs / name for other in trials for name in other.user_attrs.get("artefacts", [])]
                for trials in (self.study.trials, ranked(self.study)[:1])
            )
            discard(self.sweep.keep_weights, made, best, self.folder.name)

    def _settings(self) -> dict[str, Any]:
        """Return all that makes trials comparable."""
        config = self.resolved.config.seeded(self.sweep.seeds[0])
        compared = self.sweep.model_dump(mode="json", include={"space", "metric", "seeds", "measurements"})
        compared["space"] = {key: spelled(dimension) for key, dimension in compared["space"].items()}
        sections = {
            name: getattr(config, name) for name in ("task", "model", "corpus", "pretrain", "adapt", "finetune")
        }
        options = {name: None if section is None else section.determinants() for name, section in sections.items()}
        return {"sweep": compared, **options, "the labelled rows, digest": resolve(config).rows.digest[:8]}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process of this folder look at the study and change it meanwhile."""
        with trial_storage.quiet(), FileLock(self.folder / ".study.lock"):
            yield

    def _ask(self) -> optuna.Trial:
        """Take a waiting trial, or draw a new one, and show that it lives."""
        trial = self.study.ask()
        self._locks[trial.number] = self._lock(trial.number)
        self._locks[trial.number].acquire()
        self._beat(trial.number)
        trial.set_user_attr("options", search_space.overrides(search_space.draw(trial, self.sweep.space)))
        return trial

    def _beat(self, number: int) -> None:
        """Give a sign of life of a trial in a database."""
        if isinstance(self.storage, RDBStorage):
            self.storage.record_heartbeat(trial_storage.trial_id(self.storage, self.study.study_name, number))

    def _lock(self, number: int) -> FileLock:
        """Return the lock of a trial, which the system frees when the process that holds it ends, however it ends."""
        return FileLock(self.folder / f".trial-{number}.lock")

    def _requeue_dead(self) -> None:
        """Mark the trials whose process died as failed, and have them run again."""
        if isinstance(self.storage, RDBStorage):
            optuna.storages.fail_stale_trials(self.study)
            return
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            with suppress(Timeout), self._lock(trial.number).acquire(blocking=False):
                self._tell(trial.number, TrialState.FAIL)
                run_again(self.study, trial)

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        try:
            self.study.tell(number, value, state)
        except RuntimeError:  # BruteForce, which has tried all there is, stops a loop of Optuna's own; it was told
            self._space_is_exhausted = True
