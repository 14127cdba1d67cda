"""The trials of a sweep in Optuna's journal: which are next, which lost their process, and what became of each."""

import logging
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, final

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc, pool

from ulmfit_style.artefacts.differences import changes as changes_of
from ulmfit_style.config.experiments import Sweep
from ulmfit_style.config.section import MODEL_SECTIONS, spelled
from ulmfit_style.console import say
from ulmfit_style.errors import UserError, nearest, reworded
from ulmfit_style.experiments import search_space
from ulmfit_style.experiments.trials import discard
from ulmfit_style.recipe import Config
from ulmfit_style.stages.table import resolve

JOURNAL = "journal.log"
"""The trials, within the folder of a sweep."""

SHORT_NAMES = {"none": "nop", "asha": "successivehalving"}
"""Names of pruners that are not Optuna's."""

DIED = "its process died, twice"
"""Why a trial failed that gives no other reason."""


@final
@dataclass
class Outcome:
    """What became of a trial: `COMPLETE`, `PRUNED` or `FAIL`."""

    state: TrialState
    scores: list[float] = field(default_factory=list)
    """That of each seed, on the validation rows."""
    intervals: list[Sequence[float]] = field(default_factory=list)
    """The 95 % interval of each, over these rows."""
    artefacts: list[str] = field(default_factory=list)
    """The directory's name of the fine-tuned model of each seed."""
    error: str = ""


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Optuna's warnings that something is experimental, and send what else it says to the log of the run."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    with warnings.catch_warnings(action="ignore"):
        yield


def open_journal(folder: Path, database: str | None = None) -> BaseStorage:
    """Open the journal of a sweep, or begin it: a file in its folder, or a database by its URL.

    Raises:
        UserError: if the database does not answer, or the package that speaks to it is missing.
    """
    # The lock of a file is a link to its path: one that leads nowhere, as a relative path would, is waited for always.
    if database is None:
        return JournalStorage(JournalFileBackend(str((folder / JOURNAL).resolve())))
    try:  # each measurement opens it anew: pools would hold more connections than a server takes
        return RDBStorage(database, engine_kwargs={"poolclass": pool.NullPool})
    except Exception as error:  # of Optuna, of SQLAlchemy, or of whichever driver it is
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"sweep.storage: {reason}; the server must answer, and its driver be installed") from error


def trial_id(journal: BaseStorage, study: str, number: int) -> int:
    """Return what a journal calls the trial of a number."""
    return journal.get_trial_id_from_study_id_trial_number(journal.get_study_id_from_name(study), number)


def drop_cut_line(journal: Path) -> None:
    """Take an unfinished last line off a journal, as a loss of power leaves it: Optuna would write on in that line."""
    lock = JournalFileSymlinkLock(str(journal.resolve()))
    lock.acquire()
    try:
        lines, newline, rest = journal.read_bytes().rpartition(b"\n")
        if rest:
            os.truncate(journal, len(lines + newline))
            say(f"{journal}: its last line was cut short and is dropped; what it recorded happens again")
    finally:
        lock.release()


def of_optuna(kind: str, chosen: Mapping[str, Any]) -> Any:
    """Make the sampler or the pruner that a mapping names; its other values are what Optuna's class takes.

    Args:
        kind: `sampler` or `pruner`.

    Raises:
        UserError: if there is none of that name, or it does not take its options.
    """
    module, ending = getattr(optuna, f"{kind}s"), kind.capitalize()
    classes = {name.removesuffix(ending).lower(): name for name in module.__all__ if name.endswith(ending)}
    options = dict(chosen)
    name = options.pop("name").lower()
    name = SHORT_NAMES.get(name, name)
    if name not in classes:
        raise UserError(f"sweep.{kind}={chosen['name']}: Optuna has no such {kind}{nearest(name, classes)}")
    with quiet(), reworded(f"sweep.{kind}={spelled(dict(chosen))}: ", TypeError, ValueError):
        return getattr(module, classes[name])(**options)


def folder_name(config: Config) -> str:
    """Return the name of a sweep's folder under `runs`, and of its study in the journal."""
    return f"{config.name}-sweep"


def ranked_by(config: Config) -> str:
    """Return the name of the score that the trials of a sweep are ranked by.

    Raises:
        UserError: if it is none of the task's scores that are better when higher.
    """
    task, metric = config.require_task(), config.sweep.metric if config.sweep else None
    rankings = (task.metric, *task.rankings)
    if metric not in (None, *rankings):
        kind = f"{type(task).__name__} ranks by {', '.join(rankings)}"
        raise UserError(f"sweep.metric={metric}: {kind}{nearest(str(metric), rankings)}")
    return metric or task.metric


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were trained to the end, the best one first."""
    return sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: -trial.values[0])


def failures(study: optuna.Study) -> list[tuple[FrozenTrial, str]]:
    """Return the trials that failed, and why."""
    return [(trial, trial.user_attrs.get("error", DIED)) for trial in study.get_trials(states=(TrialState.FAIL,))]


def count(study: optuna.Study) -> Counter[TrialState]:
    """Return how many trials were begun, by their states: not those that wait to be run, or to be run again."""
    return Counter(trial.state for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING)


def options_of(trial: FrozenTrial) -> str:
    """Return what a trial tries, with three digits of each number."""
    shown = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in trial.params.items()}
    return ("the recipe: " if "default" in trial.user_attrs else "") + " ".join(search_space.overrides(shown))


@final
class TrialQueue:
    """A process's view of the study of a sweep, which is opened, or begun with the recipe as its first trial.

    Args:
        overrides: Those of the sweep.

    Raises:
        UserError: if the study is one of another recipe or space, or its journal cannot be read.
    """

    def __init__(self, config: Config, sweep: Sweep, overrides: Sequence[str]) -> None:
        self.config, self.sweep, self.folder = config, sweep, config.runs / folder_name(config)
        self._deadline = time.monotonic() + 3600 * (math.inf if sweep.max_hours is None else sweep.max_hours)
        self._space_is_exhausted = False
        self._locks: dict[int, FileLock] = {}
        """Those of the trials that this process runs, by their numbers."""
        chosen = {kind: of_optuna(kind, getattr(sweep, kind)) for kind in ("sampler", "pruner")}
        recipe, settings = search_space.of_recipe(config, overrides, sweep.space), self._settings()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.journal = open_journal(self.folder, sweep.storage)
            if sweep.storage is None:
                drop_cut_line(self.folder / JOURNAL)
            self.study = optuna.create_study(
                study_name=self.folder.name, storage=self.journal, direction="maximize", load_if_exists=True, **chosen
            )
            if (before := self.study.user_attrs.get("settings")) is None:
                self.study.enqueue_trial(recipe, user_attrs={"default": True}, skip_if_exists=True)
                self.study.set_user_attr("overrides", list(overrides))
                self.study.set_user_attr("settings", settings)
                return
        if changes := list(changes_of(before, settings)):
            other = "there is a sweep of that name, and what it compares is not what you ask for"
            remedy = "begin a new one with name=<another name>, or take these back"
            raise UserError("\n  - ".join([f"name={config.name}: {other}; {remedy}:", *changes]))

    def take(self) -> list[optuna.Trial]:
        """Return the trials that this process is to run now; none where all are done, running or out of time.

        Raises:
            UserError: if too many have failed.
        """
        sweep = self.sweep
        with self._alone():
            self._requeue_dead()
            if len(failed := failures(self.study)) > sweep.max_failures:
                trial, error = failed[-1]
                many = f"{len(failed)} trials failed, more than sweep.max_failures={sweep.max_failures}"
                raise UserError(f"sweep: {many}; the last one, trial {trial.number}: {error}")
            if self._space_is_exhausted or time.monotonic() >= self._deadline:
                return []
            left = sweep.parallel if sweep.trials is None else sweep.trials - count(self.study).total()
            with reworded(f"sweep.sampler={sweep.sampler['name']}: ", ImportError):
                return [self._ask() for _ in range(min(sweep.parallel, left))]

    def put_back(self, trials: Sequence[optuna.Trial]) -> None:
        """Let trials wait again that a signal stopped: their processes did not die."""
        with self._alone():
            for trial in trials:
                self._wait_again(trial.number, died=False)
                self._locks.pop(trial.number).release()

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Record what became of a trial, and discard weights that are not kept."""
        with self._alone():
            for name, value in asdict(outcome).items():
                trial.set_user_attr(name, value)
            score = mean(outcome.scores) if outcome.state == TrialState.COMPLETE else None
            self._tell(trial.number, outcome.state, score)
            self._locks.pop(trial.number).release()
            made, best = (
                [self.config.runs / name for other in trials for name in other.user_attrs.get("artefacts", [])]
                for trials in (self.study.trials, ranked(self.study)[:1])
            )
            discard(self.sweep.keep_weights, made, best, self.folder.name)

    def _settings(self) -> dict[str, Any]:
        """Return all that makes trials comparable."""
        config = self.config.seeded(self.sweep.seeds[0])
        sections = {name: getattr(config, name) for name in MODEL_SECTIONS}
        return {
            "sweep": self.sweep.model_dump(mode="json", include={"space", "metric", "seeds", "measurements"}),
            **{name: None if section is None else section.determinants() for name, section in sections.items()},
            "the labelled rows, digest": resolve(config).rows.digest[:8],
        }

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process of this folder look at the study and change it meanwhile."""
        with quiet(), FileLock(self.folder / ".study.lock"):
            yield

    def _ask(self) -> optuna.Trial:
        """Take a waiting trial, or draw a new one, and lock it to show that it lives."""
        trial = self.study.ask()
        self._locks[trial.number] = self._lock(trial.number)
        self._locks[trial.number].acquire()
        trial.set_user_attr("options", search_space.overrides(search_space.draw(trial, self.sweep.space)))
        return trial

    def _lock(self, number: int) -> FileLock:
        """Return the lock of a trial, which the system frees when the process that holds it ends, however it ends."""
        return FileLock(self.folder / f".trial-{number}.lock")

    def _requeue_dead(self) -> None:
        """Let trials whose process died wait again, once."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            with suppress(Timeout), self._lock(trial.number).acquire(blocking=False):
                say(f"trial {trial.number}: its process died")
                if "died" in trial.user_attrs:
                    self._tell(trial.number, TrialState.FAIL)
                else:
                    self._wait_again(trial.number, died=True)

    def _wait_again(self, number: int, *, died: bool) -> None:
        """Let a trial wait to be run again, with what it reported so far."""
        trial = trial_id(self.journal, self.folder.name, number)
        if died:
            self.journal.set_trial_user_attr(trial, "died", True)
        self.journal.set_trial_state_values(trial, TrialState.WAITING)

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        try:
            self.study.tell(number, value, state)
        except RuntimeError:  # BruteForce, which has tried all there is, stops a loop of Optuna's own; it was told
            self._space_is_exhausted = True


@final
@dataclass
class TrialReporter:
    """Reports the scores of a trial while it is trained, from whichever process trains it."""

    sweep: Sweep
    folder: Path
    """That of the sweep; its name is that of the study in the journal."""
    number: int
    """The trial's."""
    metric: str
    """The score that is reported."""
    measurements: int
    """How many scores a model has, with that of its end."""
    earlier_scores: Sequence[float]
    """Those of the models of its earlier seeds."""

    def report(self, measurement: int, score: float) -> bool:
        """Report a score, and return whether the trial is to be stopped.

        What is kept is the mean of the earlier seeds' scores and this one, at a step that counts the measurements over
        all seeds: so the trials are compared at equal steps. Where the database is gone, the trial goes on without, and
        its model is whole when it is asked for again.
        """
        step = len(self.earlier_scores) * self.measurements + measurement
        try:
            with quiet():
                journal, pruner = open_journal(self.folder, self.sweep.storage), of_optuna("pruner", self.sweep.pruner)
                study = optuna.load_study(study_name=self.folder.name, storage=journal, pruner=pruner)
                trial = optuna.Trial(study, trial_id(journal, self.folder.name, self.number))
                trial.report(mean([*self.earlier_scores, score]), step)
                # Stopped at the last step, it would save nothing.
                return step < self.measurements * len(self.sweep.seeds) and trial.should_prune()
        except (UserError, exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            logging.getLogger(__name__).warning("trial %s: not reported: %s", self.number, error)
            return False
