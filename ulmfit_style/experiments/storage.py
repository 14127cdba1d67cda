"""Where the trials of a sweep are kept, and what the process that trains one of them tells it. Optuna comes late."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from ulmfit_style.config.experiments import Sweep
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import say
from ulmfit_style.errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
"""Within the folder of a sweep: its trials, where they are in no database."""

CUT = "journal.cut"
"""Beside it: what of a last line was there that a killed process had not written to its end."""

TABLES_SECONDS = 5
"""How long the tables of an empty database take to be made."""

PATIENCE = 3
"""Signs of life that a trial in a database may miss."""

HALVING = {"min_resource": 1, "reduction_factor": 2}
"""Half of the trials go on at 1, 2, 4, ... measurements; Optuna's own third or fourth part suits longer courses."""


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Optuna's warnings that something is experimental, and send what else it says to the log of the run."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(
    sweep: Sweep | None, folder: Path, when_stale: Callable[[Study, FrozenTrial], None] | None = None
) -> BaseStorage:
    """Open the storage of a sweep.

    Args:
        sweep: Its options; None for those of a journal.
        folder: The folder of the sweep, where the journal is.
        when_stale: What is to be done about a trial in a database that gave no sign of life for too long.

    Raises:
        UserError: if the database cannot be reached, or the journal cannot be read.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    if sweep is None or sweep.storage is None:
        folder.mkdir(parents=True, exist_ok=True)
        _mend(folder / JOURNAL)
        with quiet():
            return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    beat = sweep.heartbeat_seconds
    database = partial(
        RDBStorage,
        sweep.storage,
        heartbeat_interval=beat,
        grace_period=PATIENCE * beat,
        heartbeat_stale_trial_callback=when_stale,
    )
    try:
        with quiet():
            try:
                return database()
            except (IntegrityError, ProgrammingError):  # another worker was making the tables of an empty database
                time.sleep(TABLES_SECONDS)
                return database()
    except ImportError as error:
        remedy = "install the driver that the URL names, such as psycopg2-binary for postgresql+psycopg2://"
        raise UserError(f"sweep.storage={_shown(sweep.storage)}: needs a driver that is not there; {remedy}") from error
    except lost() as error:
        raise UserError(unreachable(sweep.storage, error)) from error


def lost() -> tuple[type[Exception], ...]:
    """Return what is raised when the connection to a database is lost."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError


def unreachable(url: str, error: Exception) -> str:
    """Say that a database cannot be reached, without its password."""
    reason = str(error.__cause__ or error).strip().partition("\n")[0]
    remedy = "the trials that it holds are not lost; the same command goes on when it answers"
    return f"sweep.storage={_shown(url)}: cannot be reached ({reason}); {remedy}"


def _shown(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _mend(path: Path) -> None:
    """Take an unfinished last line off a journal, which a killed process left: the next line would be glued to it.

    Raises:
        UserError: if another line cannot be read.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()  # nobody writes meanwhile
    try:
        whole, newline, rest = path.read_bytes().rpartition(b"\n")
        if rest:
            with path.with_name(CUT).open("ab") as file:
                file.write(rest + b"\n")
            with path.open("r+b") as file:
                file.truncate(len(whole + newline))
            say(f"{path}: its last line was cut short, and is in {CUT} now; what it told happens again")
    finally:
        lock.release()
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            remedy = "put a copy of it back, or begin another sweep with name=...; the models that were trained stay"
            raise UserError(f"{path}: line {number} cannot be read; {remedy}") from error


def pruner(sweep: Sweep) -> BasePruner:
    """Return Optuna's pruner.

    Raises:
        UserError: if it does not take its options.
    """
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

    steps = {"max_resource": sweep.measurements * len(sweep.seeds)}
    kinds: dict[str, Callable[[dict[str, Any]], BasePruner]] = {
        "none": lambda options: NopPruner(**options),
        "median": lambda options: MedianPruner(**options),
        "asha": lambda options: SuccessiveHalvingPruner(**{**HALVING, **options}),
        "hyperband": lambda options: HyperbandPruner(**{**HALVING, **steps, **options}),
    }
    try:
        with quiet():
            return kinds[sweep.pruner](sweep.pruner_options)
    except (TypeError, ValueError) as error:
        raise UserError(f"sweep.pruner_options={spelled(sweep.pruner_options)}: {error}") from error


class TrialInTraining:
    """What a trial that is being trained tells, and whether it goes on. It goes to the processes that train it.

    Args:
        metric: The score that is reported.
        study: The name of the sweep in its storage.
        trial: The trial's number there.
        scores: Those of the models of its earlier seeds.
    """

    def __init__(
        self, sweep: Sweep, metric: str, folder: Path, study: str, trial: int, scores: Sequence[float]
    ) -> None:
        self.sweep, self.metric, self.folder, self.name, self.trial = sweep, metric, folder, study, trial
        self.scores, self.measurements = scores, sweep.measurements

    def report(self, measurement: int, score: float) -> bool:
        """Tell a score, and return whether the trial shall be stopped.

        What is told is the mean of the earlier seeds' scores and this one, at a step that counts the measurements over
        all seeds: so the trials are compared at equal steps.
        """
        from optuna import load_study

        sweep = self.sweep
        step = len(self.scores) * sweep.measurements + measurement
        storage = opened(sweep, self.folder)
        study_id = storage.get_study_id_from_name(self.name)
        trial = storage.get_trial_id_from_study_id_trial_number(study_id, self.trial)
        storage.set_trial_intermediate_value(trial, step, mean([*self.scores, score]))
        if step == sweep.measurements * len(sweep.seeds):
            return False  # nothing would be saved
        study = load_study(study_name=self.name, storage=storage, pruner=pruner(sweep))
        return study.pruner.prune(study, storage.get_trial(trial))
