"""Sweeps: what a queue of trials does when processes die, and a search that is stubbed, real, and killed."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
import trial_stub
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import MANIFEST, METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.experiments import Sweep
from ulmfit_style.errors import Interrupted, UserError, trouble
from ulmfit_style.experiments import search_space, trial_queue
from ulmfit_style.experiments.trial_queue import (
    DIED,
    JOURNAL,
    Outcome,
    TrialQueue,
    TrialReporter,
    of_optuna,
    open_journal,
    ranked_by,
)
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Resolved

SPACE = """
space:
  finetune.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  finetune.batch_size: [4, 8]
  finetune.weight_decay: {low: 0.0, high: 0.1, when: {finetune.batch_size: 4}}
trials: 4
"""
INSIDE = ["finetune.learning_rate=1e-3", "finetune.batch_size=8"]

Queue = Callable[..., TrialQueue]
Trials = Callable[[], list[FrozenTrial]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, in which a sweep writes its winner."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(not_adapted: list[str], tiny_overrides: list[str], folder: Path) -> Callable[..., list[str]]:
    """Return the tiny recipe with a space of the test's own, adapted where that matters."""

    def choose(text: str, *overrides: str, adapted: bool = False) -> list[str]:
        path = folder / "my_conf/sweep/mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        recipe = tiny_overrides if adapted else not_adapted
        return [f"hydra.searchpath=['{folder}/my_conf']", *recipe, "sweep=mine", *overrides]

    return choose


@pytest.fixture
def queue(not_adapted: list[str]) -> Queue:
    """Open the queue of a sweep, as another process would; its recipe is the first of four trials."""

    def open_queue(*overrides: str, **options: object) -> TrialQueue:
        space = {"finetune.weight_decay": [0.01, 0.02, 0.03, 0.04]}
        options = {"space": space, "sampler": "BruteForce", "trials": 4, **options}
        recipe = [*not_adapted, *overrides]
        return TrialQueue(compose(recipe), Sweep.model_validate(options), recipe)

    return open_queue


@pytest.fixture
def trials(folder: Path) -> Trials:
    """Read the trials of the sweep."""
    return lambda: study(folder).trials


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trials in no time."""
    monkeypatch.setattr("ulmfit_style.experiments.trials.train", trial_stub.train)


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="default-sweep", storage=open_journal(folder / "runs/default-sweep"))


def states(trials: list[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def scored(score: float) -> Outcome:
    return Outcome(TrialState.COMPLETE, [score], [(0.0, 1.0)])


def test_a_trial_whose_process_died_is_run_again_once(queue: Queue, capsys: pytest.CaptureFixture):
    for step in (1, 2):
        process = queue()
        (trial,) = process.take()
        assert trial.number == 0
        trial.report(0.5, step)
        process._locks[0].release()  # as the system does when a process ends
    last = queue()
    assert [trial.number for trial in last.take()] == [1]
    assert capsys.readouterr().out.count("trial 0: its process died\n") == 2
    ((dead, reason),) = trial_queue.failures(last.study)
    assert (dead.number, reason, dead.intermediate_values) == (0, DIED, {1: 0.5, 2: 0.5})


def test_processes_share_the_trials_of_a_queue(queue: Queue):
    first, second = queue(), queue(parallel=2)
    taken = [*first.take(), *second.take(), *first.take(), *second.take()]
    assert [trial.number for trial in taken] == [0, 1, 2, 3]
    assert len({trial.params["finetune.weight_decay"] for trial in taken}) == 4
    first.put_back([taken[0]])  # a signal stopped it
    assert [trial.number for trial in second.take()] == [0]
    second.finish(taken[1], scored(0.5))
    assert states(first.study.trials) == ["RUNNING", "COMPLETE", "RUNNING", "RUNNING"]


def test_a_worker_out_of_hours_or_with_too_many_failures_begins_nothing(queue: Queue):
    assert queue(max_hours=1e-9).take() == []
    process = queue(max_failures=0)
    (trial,) = process.take()
    process.finish(trial, Outcome(TrialState.FAIL, error="the loss is nan"))
    with pytest.raises(UserError, match=r"more than sweep.max_failures=0; the last one, trial 0: the loss is nan"):
        process.take()


def test_a_space_in_which_all_is_tried_ends_the_sweep(queue: Queue):
    process = queue(trials=9)
    for score in range(4):
        process.finish(*process.take(), scored(score))
    assert process.take() == []
    assert [trial.number for trial in trial_queue.ranked(process.study)] == [3, 2, 1, 0]


def test_a_sweep_that_compares_something_else_wants_another_name(queue: Queue):
    queue()
    with pytest.raises(UserError) as caught:
        queue("finetune.max_length=64", space={"finetune.weight_decay": [0.01]}, seeds=[0, 1])
    for difference in (
        "name=default: there is a sweep of that name",
        "sweep.space.finetune.weight_decay.choices=[0.01, 0.02, 0.03, 0.04] instead of [0.01]",
        "sweep.seeds=[0] instead of [0, 1]",
        "finetune.max_length=128 instead of 64",
    ):
        assert difference in str(caught.value)
    queue("name=other", space={"finetune.weight_decay": [0.01]})


def test_a_journal_that_was_cut_short_goes_on(queue: Queue, folder: Path, capsys: pytest.CaptureFixture):
    process = queue()
    process.finish(*process.take(), scored(0.5))
    journal = folder / "runs/default-sweep" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-9])
    # The end of the trial was lost, so it is run again.
    assert [trial.number for trial in queue().take()] == [0]
    assert f"{journal}: its last line was cut short and is dropped" in capsys.readouterr().out


def test_a_journal_that_a_killed_worker_has_locked_goes_on(queue: Queue, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(JournalFileSymlinkLock.__init__, "__defaults__", (3,))  # seconds, where 30 are usual
    process = queue("runs=runs")
    lock = folder / "runs/default-sweep" / f"{JOURNAL}.lock"
    for go_on in (process.take, lambda: queue("runs=runs")):
        assert process.journal._backend._lock.acquire()
        assert lock.exists()  # Optuna waits for ever for a link that leads nowhere
        go_on()
        assert not lock.is_symlink()


@pytest.mark.usefixtures("stubbed")
def test_a_sweep_goes_to_its_total_and_on_to_a_larger_one(
    sweep: Callable, trials: Trials, folder: Path, capsys: pytest.CaptureFixture
):
    overrides = sweep(SPACE, *INSIDE, "sweep.seeds=[0,1]")
    assert main(["sweep", *overrides, "sweep.trials=2"]) == 0
    assert len(trials()) == 2
    assert main(["sweep", *overrides, "sweep.trials=3"]) == 0
    said = capsys.readouterr().out
    out = " ".join(said.split())
    assert re.search(r"\[3 of 3\] trial 2: (stopped early, at )?accuracy 0\.\d+; best so far 0\.\d+ \(trial \d\)", out)
    assert "the best by the validation rows, over 2 seeds" in out
    first, *others = trials()
    assert len(others) == 2
    assert first.user_attrs["default"]
    assert first.params == {"finetune.learning_rate": 1e-3, "finetune.batch_size": 8}
    for trial in [first, *others]:
        assert ("finetune.weight_decay" in trial.params) == (trial.params["finetune.batch_size"] == 4)
        if trial.state == TrialState.COMPLETE:
            assert trial.value == pytest.approx(sum(trial.user_attrs["scores"]) / 2)
            assert max(trial.intermediate_values) == 8

    best = study(folder).best_trial
    whole = {path.parent.name for path in (folder / "runs").glob(f"finetune-*/{MANIFEST}")}
    assert whole == set(best.user_attrs["artefacts"])  # only the best trial's weights are kept

    # The command of the winner makes the very model that won.
    command = shlex.split(said.splitlines()[-1].partition("beside the references: make adapt finetune ")[2])
    assert command[0] == "name=default_best"
    assert main(["plan", "finetune", *command, "compare=false"]) == 0
    assert f"up to date ({folder}/runs/{best.user_attrs['artefacts'][0]})" in capsys.readouterr().out


@pytest.mark.usefixtures("stubbed")
def test_a_failed_trial_is_recorded_and_a_stopped_one_goes_on_ranked_by_another_score(
    sweep: Callable, trials: Trials, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    text = "space:\n  finetune.weight_decay: [0.01, 0.07]\n  finetune.new_epochs: [1] # which no YAML spells out\n"
    overrides = sweep(f"{text}sampler: BruteForce\ntrials: 2\nmetric: matthews\n")
    with monkeypatch.context() as patch:
        patch.setattr("ulmfit_style.experiments.trials.train", Mock(side_effect=Interrupted(signal.SIGINT, "stopped")))
        assert main(["sweep", *overrides]) == 128 + signal.SIGINT
    assert states(trials()) == ["WAITING"]
    assert main(["sweep", *overrides]) == 0
    said = capsys.readouterr().out
    assert "Failed: trial 1 (finetune.weight_decay=0.07 finetune.new_epochs=1): the loss is nan" in said
    assert "validation matthews" in said
    assert states(trials()) == ["COMPLETE", "FAIL"]
    (name,) = trials()[0].user_attrs["artefacts"]
    assert trials()[0].value == read_json(Path("runs") / name / METRICS)["validation"]["scores"]["matthews"]


@pytest.mark.parametrize(
    ("text", "overrides", "problems"),
    [
        (
            "{finetune.lr: [1e-3], finetune.learning_rate: {low: 1e-3, high: 2}}",
            [],
            ["sweep.space: finetune.lr: there is no such option", "sweep.space: finetune.learning_rate=2: should be"],
        ),
        ("finetune.batch_size: [16, 3]", ["processes=2"], ["sweep.space: finetune.batch_size=3: take a multiple of"]),
        ("runs: [a, b]", [], ["sweep.space: runs: is not for a sweep to choose"]),
        ("finetune.epochs: {low: 4, high: 8}", [], ["finetune.epochs: the recipe's 2 lies outside"]),
        ("finetune.epochs: [2]", ["finetune.epochs=2,4"], ["sweep: a grid and a space, one at a time"]),
    ],
)
def test_what_is_wrong_with_a__before_anything_is_trained(
    sweep: Callable, capsys: pytest.CaptureFixture, text: str, overrides: list[str], problems: list[str]
):
    assert main(["sweep", *sweep(f"space:\n  {text}\n", *overrides)]) == 2
    said = capsys.readouterr().err
    assert [problem for problem in problems if problem not in said] == []


def test_a_sampler_a_pruner_and_a_metric_that_are_not_there_are_refused(not_adapted: list[str]):
    with pytest.raises(UserError, match=r"sweep.sampler=TBE: Optuna has no such sampler; did you mean 'tpe'"):
        of_optuna("sampler", {"name": "TBE"})
    with pytest.raises(UserError, match=r'sweep.pruner={"name": "median", "steps": 1}: .*steps'):
        of_optuna("pruner", {"name": "median", "steps": 1})
    config = compose([*not_adapted, "sweep=finetune", "sweep.metric=f1"])
    with pytest.raises(UserError, match=r"sweep.metric=f1: TextClassification ranks by accuracy, macro_f1, micro_f1"):
        ranked_by(config)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"space": {"a": {"low": 4, "high": 2}}}, "low should be less than high, and they are 4 and 2"),
        ({"space": {"a": {"low": 0, "high": 2, "log": True}}}, "log goes with a low above 0"),
        ({"space": {"a": {"choices": [2], "low": 2}}}, "has choices, so it has no low"),
        ({"space": {"a": {"low": 2, "high": 4, "when": {"b": "x"}}}}, "when: no dimension above it is"),
        ({"trials": None}, "needs trials, max_hours or both"),
        ({"sampler": {"n_startup_trials": 3}}, "needs name"),
    ],
)
def test_a_sweep_whose_options_do_not_fit_together_is_refused(options: dict[str, object], problem: str):
    with pytest.raises(ValidationError, match=problem):
        Sweep.model_validate({"space": {"finetune.epochs": [2, 4]}, **options})


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql+pymysql://me@host/sweeps", "No module named 'pymysql'"),
        ("reviews.db", "Could not parse SQLAlchemy URL from given URL string"),
        ("sqlite:////nowhere/sweeps.db", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_in_one_line(queue: Queue, url: str, problem: str):
    remedy = "the server must answer, and its driver be installed"
    with pytest.raises(UserError, match=f"^sweep.storage: {problem}; {remedy}$"):
        queue(storage=url)


def test_a_database_that_goes_away_in_a_trial_is_told_in_one_line_when_the_trial_has_ended(
    sweep: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, caplog
):
    database, begun = folder / "there", list[int]()
    database.mkdir()

    def train(resolved: Resolved, reporter: TrialReporter) -> None:
        begun.append(reporter.number)
        if reporter.number == 1:
            database.rename(folder / "gone")
        trial_stub.train(resolved, reporter)

    monkeypatch.setattr("ulmfit_style.experiments.trials.train", train)
    command = ["sweep", *sweep(SPACE, *INSIDE, "sweep.pruner=none", f"sweep.storage='sqlite:///{database}/trials.db'")]
    assert main(command) == 2
    problem = "the database failed: unable to open database file; once it answers again, the same command goes on"
    assert capsys.readouterr().err == f"ulmfit-style: {problem}\n"
    assert "trial 1: not reported: sweep.storage: unable to open database file" in caplog.text
    assert begun == [0, 1]


def test_a_trial_whose_end_the_database_did_not_take_waits_again_when_it_is_back(queue: Queue, tmp_path: Path):
    database = tmp_path / "there"
    database.mkdir()
    url = f"sqlite:///{database}/trials.db"
    process = queue(storage=url)
    (trial,) = process.take()
    reporter = TrialReporter(process.sweep, process.folder, trial.number, "accuracy", 4, [])
    assert not reporter.report(1, 0.5)
    database.rename(tmp_path / "gone")
    assert not reporter.report(2, 0.6)
    with pytest.raises((OperationalError, StorageInternalError)) as raised:
        process.finish(trial, scored(0.7))
    assert trouble(raised.value).startswith("the database failed: unable to open database file; once it answers again")
    process._locks[0].release()  # as the system does when a process ends

    (tmp_path / "gone").rename(database)
    last = queue(storage=url)
    (again,) = last.take()
    last.finish(again, scored(0.7))
    (found,) = last.study.trials
    assert (found.number, found.value, found.intermediate_values) == (0, 0.7, {1: 0.5})


def test_a_report_of_no_sweep_tells_how_one_begins(folder: Path, capsys: pytest.CaptureFixture):
    assert main(["sweep-report", "name=never"]) == 2
    assert "there is no sweep never-sweep in runs; make sweep sweep=finetune begins one" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("recipe", [["finetune"], ["texts"], ["generation", "task=xsum"], ["adapt"]], ids=" ".join)
def test_the_recipe_and_all_ends_of_a_shipped_space_are_possible(recipe: list[str]):
    recipe = [f"sweep={recipe[0]}", "finetune=plain", *recipe[1:]]
    config = compose(recipe)
    space = config.sweep.space
    assert search_space.of_recipe(config, recipe, space)
    for end in (0, -1):
        values = {key: dimension.extremes[end] for key, dimension in space.items()}
        assert isinstance(compose([*recipe, *search_space.overrides(values)]), Config)


HOPELESS = """
space:
  finetune.learning_rate: [1e-2, 1e-8, 1e-7]
sampler: BruteForce
pruner: {name: median, n_startup_trials: 1}
measurements: 5
trials: 2
"""
GOOD = ["task.train_samples=null", "finetune.epochs=5", "finetune.max_length=32", "finetune.unfreeze=[1, all]"]


def test_a_hopeless_trial_is_stopped_and_the_others_are_the_same_as_a_run_of_their_own(
    sweep: Callable, trials: Trials, not_adapted: list[str], folder: Path, capsys: pytest.CaptureFixture
):
    recipe = [*GOOD, "finetune.learning_rate=1e-2"]
    assert main(["sweep", *sweep(HOPELESS, *recipe)]) == 0
    good, hopeless = trials()
    assert states([good, hopeless]) == ["COMPLETE", "PRUNED"]
    assert sorted(good.intermediate_values) == [1, 2, 3, 4, 5]
    assert good.intermediate_values[5] == good.value
    assert 1 <= len(hopeless.intermediate_values) < 5
    assert "trial 1: stopped early, at accuracy" in capsys.readouterr().out

    assert main(["finetune", *not_adapted, f"runs={folder / 'alone'}", "task.folds=0", *recipe]) == 0
    (swept,) = (folder / "runs").glob("finetune-*")  # what was stopped left nothing
    (alone,) = (folder / "alone").glob("finetune-*")
    assert swept.name == alone.name
    for name in ("model.safetensors", "predictions.parquet"):
        assert (swept / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped_in_every_rank(sweep: Callable, trials: Trials):
    assert main(["sweep", *sweep(HOPELESS, *GOOD, "finetune.learning_rate=1e-2", "processes=2")]) == 0
    assert states(trials()) == ["COMPLETE", "PRUNED"]


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ulmfit_style", "sweep", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_workers_on_one_journal_with_four_kills(sweep: Callable, trials: Trials, folder: Path):
    slow = ["finetune.epochs=60", "save_minutes=0.001", "sweep.pruner=none", "sweep.measurements=20"]
    overrides = sweep(SPACE, *INSIDE, *slow, "sweep.trials=6", adapted=True)
    workers = [start(*overrides) for _ in range(2)]
    deadline = time.monotonic() + 400
    for kill in range(4):
        seen = 0
        while seen < 2 * (kill + 1):  # that all may have come further since the last kill
            assert time.monotonic() < deadline
            time.sleep(0.1)
            if (folder / "runs/default-sweep" / JOURNAL).exists():
                started = trials() if b"default-sweep" in (folder / "runs/default-sweep" / JOURNAL).read_bytes() else []
                seen = sum(len(trial.intermediate_values) for trial in started)
        workers[kill % 2].kill()
        workers[kill % 2].communicate()
        workers[kill % 2] = start(*overrides)
    said = [worker.communicate(timeout=400) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert len(list((folder / "runs").glob("adapt-*"))) == 1
    assert len(trials()) == 6
    for trial in trials():
        assert trial.state == TrialState.COMPLETE or trial.user_attrs["died"]
        assert trial.state == TrialState.FAIL or sorted(trial.intermediate_values) == list(range(1, 21))


@pytest.mark.slow
def test_hydras_joblib_launcher_runs_trials_together(sweep: Callable, trials: Trials):
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.parallel=2", "sweep.trials=3"]
    process = start(*sweep(SPACE, *INSIDE, "sweep.pruner=none", *parallel))
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert states(trials()) == ["COMPLETE"] * 3
    assert all(len(trial.intermediate_values) == 4 for trial in trials())
    assert "[3 of 3] trial 2: " in out


@pytest.mark.slow
def test_hydras_ray_launcher_runs_trials_together(sweep: Callable, trials: Trials):
    for package in ("ray", "hydra_plugins.hydra_ray_launcher"):
        pytest.importorskip(package, reason="pip install --no-deps hydra-ray-launcher ray msgpack")
    local = ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"]
    parallel = ["hydra/launcher=ray", *local, "sweep.parallel=2", "sweep.trials=3"]
    process = start(*sweep(SPACE, *INSIDE, "sweep.pruner=none", *parallel))
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert states(trials()) == ["COMPLETE"] * 3
    assert all(len(trial.intermediate_values) == 4 for trial in trials())
    assert "[3 of 3] trial 2: " in out
