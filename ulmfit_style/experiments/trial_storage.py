"""Where the trials of a sweep are kept, Optuna's sampler and pruner, and what a trial in training reports to them."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, final

import optuna
from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from ulmfit_style.config.experiments import Sweep
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import say
from ulmfit_style.errors import UserError, nearest

JOURNAL = "journal.log"
"""Within the folder of a sweep: its trials, where they are in no database."""

CUT = "journal.cut"
"""Beside it: what of a last line was there that a killed process had not written to its end."""

HEARTBEAT_SECONDS = 60
"""Between two signs of life of a trial in a database, unless `sweep.storage` has another heartbeat_interval."""

MISSED_HEARTBEATS = 3
"""Signs of life that such a trial may miss before it is taken for dead."""

TABLES_SECONDS = 5
"""How long the tables of an empty database take to be made."""

SHORT_NAMES = {"none": "nop", "asha": "successivehalving"}
"""Names of pruners that are not Optuna's."""

HALVING = {"min_resource": 1, "reduction_factor": 2}
"""Half of the trials go on at 1, 2, 4, ... measurements; Optuna's own third or fourth part suits longer trainings."""

CONNECTION_ERRORS = (StorageInternalError, SQLAlchemyError)
"""What is raised when the connection to a database is lost."""


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Optuna's warnings that something is experimental, and send what else it says to the log of the run."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_storage(
    sweep: Sweep | None, folder: Path, when_stale: Callable[[Study, FrozenTrial], None] | None = None
) -> BaseStorage:
    """Open the storage of a sweep.

    Args:
        sweep: Its options; None for those of a journal.
        folder: The folder of the sweep, where the journal is.
        when_stale: What is done about a trial in a database that gave no sign of life for too long.

    Raises:
        UserError: if the database cannot be reached, or the journal cannot be read.
    """
    if sweep is None or sweep.storage is None:
        folder.mkdir(parents=True, exist_ok=True)
        _mend(folder / JOURNAL)
        with quiet():
            return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    options = {"heartbeat_interval": HEARTBEAT_SECONDS, "heartbeat_stale_trial_callback": when_stale, **sweep.storage}
    options = {"grace_period": MISSED_HEARTBEATS * options["heartbeat_interval"], **options}
    with quiet():
        try:
            try:
                return RDBStorage(**options)
            except (IntegrityError, ProgrammingError):  # another worker was making the tables of an empty database
                time.sleep(TABLES_SECONDS)
                return RDBStorage(**options)
        except CONNECTION_ERRORS as error:
            raise unreachable(sweep, error) from error
        except ImportError as error:
            remedy = "install the one that the URL names, such as psycopg2-binary for postgresql+psycopg2://"
            raise UserError(f"{_storage(sweep)}: needs a driver that is not installed; {remedy}") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{_storage(sweep)}: {error}") from error


def unreachable(sweep: Sweep, error: Exception) -> UserError:
    """Return the error that a database cannot be reached."""
    reason = str(error.__cause__ or error).strip().partition("\n")[0]
    remedy = "the trials in it are not lost; the same command goes on when it answers"
    return UserError(f"{_storage(sweep)}: cannot be reached ({reason}); {remedy}")


def _storage(sweep: Sweep) -> str:
    """Return the option of the database, without its password."""
    url = "" if sweep.storage is None else sweep.storage["url"]
    return "sweep.storage=" + re.sub(r"(//[^:@/]*):[^@]*@", r"\1:***@", url)


def _mend(journal: Path) -> None:
    """Take an unfinished last line off a journal, which a killed process left: the next line would be glued to it.

    Raises:
        UserError: if another line cannot be read.
    """
    if not journal.exists():
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()  # nobody writes meanwhile
    try:
        whole, newline, rest = journal.read_bytes().rpartition(b"\n")
        if rest:
            with journal.with_name(CUT).open("ab") as file:
                file.write(rest + b"\n")
            with journal.open("r+b") as file:
                file.truncate(len(whole + newline))
            say(f"{journal}: its last line was cut short, and is in {CUT} now; what it recorded happens again")
    finally:
        lock.release()
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            remedy = "put a copy of it back, or begin another sweep with name=...; the models that were trained stay"
            raise UserError(f"{journal}: line {number} cannot be read; {remedy}") from error


def sampler(sweep: Sweep) -> BaseSampler:
    """Return Optuna's sampler.

    Raises:
        UserError: if there is none of that name, or it does not take its options.
    """
    found: BaseSampler = _of_optuna("sampler", sweep.sampler, {})
    return found


def pruner(sweep: Sweep) -> BasePruner:
    """Return Optuna's pruner.

    Raises:
        UserError: if there is none of that name, or it does not take its options.
    """
    longest = {"max_resource": sweep.measurements * len(sweep.seeds)}
    defaults = {"successivehalving": HALVING, "hyperband": {**HALVING, **longest}}
    found: BasePruner = _of_optuna("pruner", sweep.pruner, defaults)
    return found


def _of_optuna(kind: str, chosen: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> Any:
    """Make the sampler or pruner that a mapping names; its other values are what Optuna's class takes."""
    module, ending = getattr(optuna, f"{kind}s"), kind.capitalize()
    classes = {name.removesuffix(ending): getattr(module, name) for name in module.__all__ if name.endswith(ending)}
    del classes["Base"]
    by_lower_case = {name.lower(): found for name, found in classes.items()}
    name, options = chosen["name"], {key: value for key, value in chosen.items() if key != "name"}
    wanted = SHORT_NAMES.get(name.lower(), name.lower())
    if wanted not in by_lower_case:
        there = f"{nearest(name, classes)} (there are: {', '.join(classes)})"
        raise UserError(f"sweep.{kind}={name}: Optuna has no such {kind}{there}")
    try:
        with quiet():
            return by_lower_case[wanted](**{**defaults.get(wanted, {}), **options})
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"sweep.{kind}={spelled(dict(chosen)) if options else name}: {error}") from error


def trial_id(storage: BaseStorage, study: str, number: int) -> int:
    """Return what a storage calls the trial of a number."""
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study), number)


@final
@dataclass
class TrialReporter:
    """Reports the scores of a trial while it is trained, from whichever process trains it."""

    sweep: Sweep
    folder: Path
    """That of the sweep; its name is that of the study in the storage."""
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
        all seeds: so the trials are compared at equal steps.
        """
        step = len(self.earlier_scores) * self.measurements + measurement
        storage = open_storage(self.sweep, self.folder)
        trial = trial_id(storage, self.folder.name, self.number)
        storage.set_trial_intermediate_value(trial, step, mean([*self.earlier_scores, score]))
        if step == self.measurements * len(self.sweep.seeds):
            return False  # nothing would be saved
        study = optuna.load_study(study_name=self.folder.name, storage=storage, pruner=pruner(self.sweep))
        return study.pruner.prune(study, storage.get_trial(trial))
