"""The trials of a sweep: how many there are, which is next, which have died, and what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from statistics import mean
from threading import Event, Thread
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from ulmfit_style import lineage
from ulmfit_style.artefacts.directory import discard_weights
from ulmfit_style.config.experiments import Sweep
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration, say
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError, nearest
from ulmfit_style.experiments import storage
from ulmfit_style.experiments.sweep import space
from ulmfit_style.recipe import Config

STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

DIED = "its process died, twice"
"""What is told of a trial that died when it was run again."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    state: Literal["done", "pruned", "failed"]
    scores: Sequence[float] = ()
    """That of each seed, on the validation rows."""
    intervals: Sequence[Sequence[float]] = ()
    """The 95 % interval of each, over these rows."""
    artefacts: Sequence[str] = ()
    """The fine-tuned model of each seed."""
    error: str = ""


@dataclass(frozen=True)
class Count:
    """How many trials there are of each kind."""

    done: int
    running: int
    pruned: int
    failed: int

    @property
    def all(self) -> int:
        """Those that count towards `sweep.trials`."""
        return self.done + self.running + self.pruned + self.failed


def folder(config: Config) -> str:
    """Return what the folder of a sweep under `runs`, and its study in a storage, is called."""
    return f"{config.name}-sweep"


def ranked_by(config: Config) -> str:
    """Return the name of the score that the trials of a sweep are ranked by.

    Raises:
        UserError: if it is none of the task's that are the better the higher.
    """
    task, metric = lineage.required_task(config), config.sweep.metric if config.sweep else None
    there = (task.metric, *task.rankings)
    if metric not in (None, *there):
        kind = f"{type(task).__name__} ranks by {', '.join(there)}"
        raise UserError(f"sweep.metric={metric}: {kind}{nearest(str(metric), there)}")
    return metric or task.metric


def done(study: Study) -> list[FrozenTrial]:
    """Return the trials that were trained to the end, the best one first."""
    return sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: -trial.values[0])


def failed(study: Study) -> list[FrozenTrial]:
    """Return the trials that failed, but for those that were run again."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in repeated]


def count(study: Study) -> Count:
    """Count the trials."""
    states = Counter(trial.state for trial in study.get_trials(deepcopy=False))
    running, pruned = states[TrialState.RUNNING], states[TrialState.PRUNED]
    return Count(states[TrialState.COMPLETE], running, pruned, len(failed(study)))


def again(study: Study, trial: FrozenTrial, deaths: int = 1) -> None:
    """Put a trial that has ended without a result into the queue, once, with what it reported.

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


@dataclass
class Worker:
    """One process that takes trials from the study of a sweep."""

    config: Config
    typed: Sequence[str]
    """The overrides of the sweep."""
    began: float = field(default_factory=time.monotonic)
    held: dict[int, FileLock] = field(default_factory=dict)
    """The locks that tell other processes which trials this one runs, by their numbers."""
    exhausted: bool = False
    """Whether the sampler has tried all there is."""

    def __post_init__(self) -> None:
        """Open the study, or begin it with the recipe as its first trial.

        Raises:
            UserError: if the study is one of another recipe or space, or its storage cannot be opened.
        """
        self.folder = self.config.runs / folder(self.config)
        self.folder.mkdir(parents=True, exist_ok=True)
        first = space.default(self.config, self.typed, self.sweep.space)
        self.storage = storage.opened(self.sweep, self.folder, again)
        with storage.quiet(), self.alone():
            self.study = optuna.create_study(
                study_name=folder(self.config),
                storage=self.storage,
                sampler=_sampler(self.sweep),
                pruner=storage.pruner(self.sweep),
                direction="maximize",
                load_if_exists=True,
            )
            settings = self._settings()
            if (before := self.study.user_attrs.get("settings")) is None:
                self.study.set_user_attr("overrides", list(self.typed))
                self.study.set_user_attr("settings", settings)
                self.study.enqueue_trial(first, user_attrs={"default": True}, skip_if_exists=True)
            elif changed := [one for name in settings for one in lineage.changes(before[name], settings[name], name)]:
                told = "\n  - ".join(changed)
                raise UserError(
                    f"name={self.config.name}: there is a sweep of that name, and what it compares is other than what "
                    f"you ask for; begin a new one with name=<another name>, or take these back:\n  - {told}"
                )

    @property
    def sweep(self) -> Sweep:
        """The options of the sweep."""
        assert self.config.sweep is not None  # it was checked
        return self.config.sweep

    @property
    def metric(self) -> str:
        """What the score is called."""
        return ranked_by(self.config)

    def budget(self) -> str:
        """Return how far the sweep is to go, and how far it has come."""
        bounds = [] if self.sweep.trials is None else [f"{self.sweep.trials} trials"]
        bounds += [] if self.sweep.max_hours is None else [f"{self.sweep.max_hours:g} hours of this worker"]
        ended = count(self.study).all
        return f"{' or '.join(bounds)}{f', {ended} of them begun before' if ended else ''}"

    def _settings(self) -> dict[str, Any]:
        """Return all that makes trials comparable."""
        config = self.config.seeded(self.sweep.seeds[0])
        compared = self.sweep.model_dump(mode="json", include={"space", "metric", "seeds", "measurements"})
        compared["space"] = {key: spelled(told) for key, told in compared["space"].items()}
        task = lineage.required_task(config)
        recipe = {name: getattr(config, name) for name in ("model", "corpus", "pretrain", "adapt", "finetune")}
        options = {name: None if section is None else section.determinants() for name, section in recipe.items()}
        data = {"the labelled rows, digest": labelled.load(task).digest[:8]}
        return {"sweep": compared, "task": task.determinants(), **options, **data}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other worker of this folder look at the study and change it meanwhile."""
        with FileLock(self.folder / ".study.lock"):
            yield

    @property
    def hours_left(self) -> float | None:
        """Hours in which this worker may begin trials; None without a bound."""
        if self.sweep.max_hours is None:
            return None
        return self.sweep.max_hours - (time.monotonic() - self.began) / 3600

    def next(self) -> list[optuna.Trial]:
        """Return the trials that this worker is to run now; none where all are done, running or out of time.

        Raises:
            UserError: if too many have failed.
        """
        with storage.quiet(), self.alone():
            self._bury()
            counted, gone = count(self.study), failed(self.study)
            if len(gone) > self.sweep.max_failures:
                last = gone[-1]
                raise UserError(
                    f"sweep: {len(gone)} trials failed, more than sweep.max_failures={self.sweep.max_failures}; the "
                    f"last one, trial {last.number}: {error_of(last)}"
                )
            if self.exhausted or (self.hours_left is not None and self.hours_left <= 0):
                return []
            left = self.sweep.parallel if self.sweep.trials is None else self.sweep.trials - counted.all
            try:
                return [self._ask() for _ in range(min(self.sweep.parallel, left))]
            except ImportError as error:
                raise UserError(f"sweep.sampler={self.sweep.sampler}: {error}") from error

    def _ask(self) -> optuna.Trial:
        """Take a waiting trial, or draw a new one, and show that it lives."""
        trial = self.study.ask()
        lock = self._lock(trial.number)
        lock.acquire()
        self._beat(trial.number)
        self.held[trial.number] = lock
        trial.set_user_attr("options", space.overrides(space.drawn(trial, self.sweep.space)))
        return trial

    def _beat(self, number: int) -> None:
        """Give a sign of life of a trial in a database."""
        if isinstance(self.storage, RDBStorage):
            study = self.storage.get_study_id_from_name(self.study.study_name)
            self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def _lock(self, number: int) -> FileLock:
        """Return the lock of a trial, which the system frees when the process that holds it ends, however it ends."""
        return FileLock(self.folder / f".trial-{number}.lock")

    def _bury(self) -> None:
        """Mark the trials of dead processes as failed, and have them run again."""
        if self.sweep.storage is not None:
            optuna.storages.fail_stale_trials(self.study)
            return
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            with suppress(Timeout), self._lock(trial.number).acquire(blocking=False):
                self._tell(trial.number, TrialState.FAIL)
                again(self.study, trial)

    @contextmanager
    def alive(self, trials: Sequence[optuna.Trial]) -> Iterator[None]:
        """Give signs of life of trials while the block runs; if a signal ends it, they run again: they did not die."""
        stop = Event()

        def beat() -> None:
            while not stop.wait(self.sweep.heartbeat_seconds):
                with suppress(*storage.lost()):  # the next one may come through
                    for trial in trials:
                        self._beat(trial.number)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            with storage.quiet(), self.alone():
                for trial in trials:
                    self._tell(trial.number, TrialState.FAIL)
                    again(self.study, self.study.trials[trial.number], deaths=0)
            raise
        finally:
            stop.set()
            thread.join()

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Write down what became of a trial, unless it was taken for dead, and discard weights that are not kept."""
        with storage.quiet(), self.alone():
            if not self.study.trials[trial.number].state.is_finished():
                for name, value in asdict(outcome).items():
                    trial.set_user_attr(name, value)
                values = mean(outcome.scores) if outcome.state == "done" else None
                self._tell(trial.number, STATES[outcome.state], values)
            self.held.pop(trial.number).release()
            (self.folder / f".trial-{trial.number}.lock").unlink(missing_ok=True)
            self._discard()

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        try:
            self.study.tell(number, value, state)
        except RuntimeError:  # BruteForce, which has tried all there is, stops a loop of Optuna's own; it was told
            self.exhausted = True

    def _discard(self) -> None:
        """Discard the weights that are not to be kept, but for those that a name outside the sweep links to."""
        finished, keep = done(self.study), self.sweep.keep_weights
        kept = finished[0].user_attrs["artefacts"] if finished and keep == "best" else []
        made = [name for trial in self.study.trials for name in trial.user_attrs.get("artefacts", [])]
        for name in [] if keep == "all" else {*made} - {*kept}:
            discard_weights(self.config.runs / name, self.folder.name)

    def progress(self, number: int) -> str:
        """Return the line that is told of a trial and of all."""
        trial, counted, finished = self.study.trials[number], count(self.study), done(self.study)
        told = {TrialState.COMPLETE: "", TrialState.PRUNED: "stopped early, at ", TrialState.FAIL: "failed"}[
            trial.state
        ]
        score = f"{self.metric} {trial.value:.3f}" if trial.value is not None else ""
        of = "" if self.sweep.trials is None else f" of {self.sweep.trials}"
        ended = counted.all - counted.running
        line = f"[{ended}{of}] trial {number}: {told}{score}; done {counted.done}, running {counted.running}, "
        line += f"stopped early {counted.pruned}, failed {counted.failed}"
        if finished:
            line += f"; best so far {finished[0].value:.3f} (trial {finished[0].number})"
        return line + self._time_left(counted, finished)

    def _time_left(self, counted: Count, finished: Sequence[FrozenTrial]) -> str:
        """Tell about how long the rest takes, by what the trials so far took, and no longer than there are hours."""
        left = [] if self.hours_left is None else [3600 * max(0.0, self.hours_left)]
        taken = [trial.duration.total_seconds() for trial in finished if trial.duration is not None]
        if self.sweep.trials is not None and taken:
            together = max(counted.running, self.sweep.parallel)
            left.append((self.sweep.trials - counted.all + counted.running) * mean(taken) / together)
        return f"; about {duration(min(left))} left" if any(left) else ""


def options_of(trial: FrozenTrial) -> str:
    """Return what a trial tries, with three digits of each number."""
    shown = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in trial.params.items()}
    return ("the recipe: " if "default" in trial.user_attrs else "") + " ".join(space.overrides(shown))


def error_of(trial: FrozenTrial) -> str:
    """Return why a trial failed."""
    return str(trial.user_attrs.get("error") or DIED)


def _sampler(sweep: Sweep) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler of a name.

    Raises:
        UserError: if there is none, or it does not take its options.
    """
    ending = "Sampler"
    names = [
        name.removesuffix(ending) for name in optuna.samplers.__all__ if name.endswith(ending) and "Base" not in name
    ]
    if sweep.sampler not in names:
        there = f"{nearest(sweep.sampler, names)} (there are: {', '.join(names)})"
        raise UserError(f"sweep.sampler={sweep.sampler}: Optuna has no such sampler{there}")
    try:
        sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, sweep.sampler + ending)(**sweep.sampler_options)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"sweep.sampler={sweep.sampler}: {error}") from error
    return sampler
