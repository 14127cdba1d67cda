"""Sweeps: searched, stopped early, killed and gone on with, by one worker and by several."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import trial_stub
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from ulmfit_style import chain
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import MANIFEST, METRICS, read_json
from ulmfit_style.config.experiments import Sweep
from ulmfit_style.experiments.trial_storage import JOURNAL

SPACE = """
space:
  finetune.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  finetune.batch_size: [4, 8]
  finetune.weight_decay: {low: 0.0, high: 0.1, when: {finetune.batch_size: 4}}
trials: 4
"""
INSIDE = ["finetune.learning_rate=1e-3", "finetune.batch_size=8"]

Trials = Callable[[], list[FrozenTrial]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, in which a sweep writes its winner."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(tiny_overrides: list[str], folder: Path) -> Callable[..., list[str]]:
    """Return the tiny recipe with a space of the test's own, adapted where that matters."""

    def choose(text: str, *overrides: str, adapted: bool = False) -> list[str]:
        own = folder / "my_conf" / "sweep"
        own.mkdir(parents=True, exist_ok=True)
        (own / "mine.yaml").write_text(text)
        tiny = tiny_overrides if adapted else plain(tiny_overrides)
        return [f"hydra.searchpath=['{own.parent}']", *tiny, "sweep=mine", *overrides]

    return choose


@pytest.fixture
def trials(folder: Path) -> Trials:
    """Read the trials of the sweep."""
    return lambda: study(folder).trials


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trials in no time."""
    monkeypatch.setattr(chain, "attempt", trial_stub.attempt)


def plain(overrides: list[str]) -> list[str]:
    return [*(override for override in overrides if not override.startswith("adapt.")), "adapt=none"]


def study(folder: Path) -> optuna.Study:
    journal = folder / "runs" / "default-sweep" / JOURNAL
    return optuna.load_study(study_name="default-sweep", storage=JournalStorage(JournalFileBackend(str(journal))))


def states(trials: list[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ulmfit_style", "sweep", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_a_running_trial(folder: Path, process: subprocess.Popen[str], at: int = 0) -> None:
    """Wait until trial `at` has told its first score."""
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        if (folder / "runs" / "default-sweep" / JOURNAL).exists():
            found = study(folder).trials if b'"op_code":0' in journal(folder).read_bytes() else []
            if len(found) > at and found[at].state == TrialState.RUNNING and found[at].intermediate_values:
                return
        time.sleep(0.05)


def journal(folder: Path) -> Path:
    return folder / "runs" / "default-sweep" / JOURNAL


@pytest.mark.usefixtures("stubbed")
def test_a_sweep_goes_to_its_total_and_on_to_a_larger_one(
    sweep: Callable, trials: Trials, folder: Path, capsys: pytest.CaptureFixture
):
    overrides = sweep(SPACE, *INSIDE, "sweep.seeds=[0,1]")
    assert main(["sweep", *overrides]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "[4 of 4] trial 3: accuracy" in out or "[4 of 4] trial 3: stopped early" in out
    assert re.search(r"done \d, running 0, stopped early \d, failed 0; best so far 0\.\d{3} \(trial \d\)", out)
    first, *others = trials()
    assert len(others) == 3
    assert first.user_attrs["default"]
    assert first.params == {"finetune.learning_rate": 1e-3, "finetune.batch_size": 8}
    for trial in [first, *others]:
        assert ("finetune.weight_decay" in trial.params) == (trial.params["finetune.batch_size"] == 4)
        if trial.state == TrialState.COMPLETE:
            assert trial.value == pytest.approx(sum(trial.user_attrs["scores"]) / 2)
            assert max(trial.intermediate_values) == 8
    for name in ("history", "importances", "slices", "curves"):
        assert (folder / "runs" / "default-sweep" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    assert main(["sweep", *overrides]) == 0
    assert "the best by the validation rows, over 2 seeds" in capsys.readouterr().out
    assert len(trials()) == 4
    assert main(["sweep", *overrides, "sweep.trials=5"]) == 0
    assert len(trials()) == 5
    best = study(folder).best_trial
    whole = {path.parent.name for path in (folder / "runs").glob(f"finetune-*/{MANIFEST}")}
    assert whole == set(best.user_attrs["artefacts"])  # only the best trial's weights are kept

    # The winner as a recipe means the very model that won.
    capsys.readouterr()
    command = [f"hydra.searchpath=['{folder}/my_conf','{folder}/conf']", "experiment=default_best", "compare=false"]
    assert yaml.safe_load((folder / "conf/experiment/default_best.yaml").read_text())["name"] == "default_best"
    assert main(["plan", "finetune", *command]) == 0
    assert f"up to date ({folder}/runs/{best.user_attrs['artefacts'][0]})" in capsys.readouterr().out


HOPELESS = """
space:
  finetune.learning_rate: [1e-2, 1e-8, 1e-7]
sampler: BruteForce
pruner: {name: median, n_startup_trials: 1}
measurements: 5
trials: 2
"""


def test_a_hopeless_trial_is_stopped_in_every_rank_and_the_others_are_the_same_as_a_run_of_their_own(
    sweep: Callable, trials: Trials, tiny_overrides: list[str], folder: Path, capsys: pytest.CaptureFixture
):
    recipe = ["task.train_samples=null", "finetune.epochs=5", "finetune.max_length=32", "finetune.unfreeze=[1, all]"]
    recipe.append("finetune.learning_rate=1e-2")
    assert main(["sweep", *sweep(HOPELESS, *recipe)]) == 0
    good, hopeless = trials()
    assert states([good, hopeless]) == ["COMPLETE", "PRUNED"]
    assert sorted(good.intermediate_values) == [1, 2, 3, 4, 5]
    assert good.intermediate_values[5] == good.value
    assert 1 <= len(hopeless.intermediate_values) < 5
    assert "trial 1: stopped early, at accuracy" in capsys.readouterr().out
    assert main(["sweep", *sweep(HOPELESS, *recipe, "sweep.trials=3", "processes=2")]) == 0
    assert states(trials()) == ["COMPLETE", "PRUNED", "PRUNED"]

    assert main(["finetune", *plain(tiny_overrides), f"runs={folder / 'alone'}", "compare=false", *recipe]) == 0
    (swept,) = (folder / "runs").glob("finetune-*")  # what was stopped left nothing
    (alone,) = (folder / "alone").glob("finetune-*")
    assert swept.name == alone.name
    for name in ("model.safetensors", "predictions.parquet"):
        assert (swept / name).read_bytes() == (alone / name).read_bytes()


SLOW = ["finetune.epochs=60", "save_minutes=0.001"]


def test_a_killed_trial_is_run_again_once_and_from_its_checkpoint(
    sweep: Callable, trials: Trials, folder: Path, capsys: pytest.CaptureFixture
):
    overrides = sweep(SPACE, *INSIDE, *SLOW, "sweep.trials=2", "sweep.pruner=none", "sweep.measurements=20")
    for deaths in range(2):
        process = start(*overrides)
        wait_for_a_running_trial(folder, process, at=deaths)
        process.kill()
        process.communicate()
    assert main(["sweep", *overrides]) == 0
    told = capsys.readouterr().out
    assert "trial 1: its process died\n" in told  # and not a third time
    assert (
        "Failed: trial 1 (the recipe: finetune.learning_rate=0.001 finetune.batch_size=8): its process died, twice"
        in told
    )
    assert states(trials()) == ["FAIL", "FAIL", "COMPLETE"]
    assert trials()[1].user_attrs["again"] == 0
    assert set(trials()[0].intermediate_values) <= set(trials()[1].intermediate_values)


def test_a_signal_is_no_death_and_the_trial_goes_on(sweep: Callable, trials: Trials, folder: Path):
    overrides = sweep(SPACE, *INSIDE, *SLOW, "sweep.trials=1", "sweep.measurements=20")
    process = start(*overrides)
    wait_for_a_running_trial(folder, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, said
    assert "stopped and saved at step" in said
    assert states(trials()) == ["FAIL", "WAITING"]
    assert main(["sweep", *overrides]) == 0
    assert states(trials()) == ["FAIL", "COMPLETE"]
    assert trials()[1].user_attrs["deaths"] == 0
    assert sorted(trials()[1].intermediate_values) == list(range(1, 21))


def test_two_workers_share_one_study_and_one_adapted_model(sweep: Callable, trials: Trials, folder: Path):
    overrides = sweep(SPACE, *INSIDE, "sweep.trials=6", "finetune.epochs=5", adapted=True)
    workers = [start(*overrides) for _ in range(2)]
    time.sleep(1)
    report = [sys.executable, "-m", "ulmfit_style", "sweep-report", *overrides]
    said = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert len(list((folder / "runs").glob("adapt-*"))) == 1
    assert len(trials()) == 6
    assert set(states(trials())) <= {"COMPLETE", "PRUNED"}
    for number in range(6):
        assert [f"trial {number}: " in out for out, _ in said].count(True) == 1
    assert subprocess.run(report, capture_output=True, text=True, check=True).stdout.count("default-sweep: ") == 1


def test_hydras_joblib_launcher_runs_trials_together(sweep: Callable, trials: Trials, folder: Path):
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.parallel=2", "sweep.trials=3"]
    process = start(*sweep(SPACE, *INSIDE, "sweep.pruner=none", *parallel))
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert states(trials()) == ["COMPLETE"] * 3
    assert all(len(trial.intermediate_values) == 4 for trial in trials())
    assert "[3 of 3] trial 2: " in out


@pytest.mark.usefixtures("stubbed")
def test_a_worker_out_of_hours_begins_nothing(sweep: Callable, capsys: pytest.CaptureFixture):
    text = "space:\n  finetune.weight_decay: [0.01, 0.07]\ntrials: 2\nmax_hours: 1e-9\n"
    assert main(["sweep", *sweep(text)]) == 0
    assert "default-sweep: 0 trials done" in capsys.readouterr().out


@pytest.mark.usefixtures("stubbed")
def test_a_failed_trial_is_recorded_and_too_many_end_the_sweep(
    sweep: Callable, trials: Trials, capsys: pytest.CaptureFixture
):
    text = "space:\n  finetune.weight_decay: [0.01, 0.07]\nsampler: BruteForce\ntrials: 3\nmax_failures: 0\n"
    assert main(["sweep", *sweep(text)]) == 2
    failures = "1 trials failed, more than sweep.max_failures=0; the last one, trial 1: the loss is nan"
    assert failures in capsys.readouterr().err
    assert states(trials()) == ["COMPLETE", "FAIL"]
    assert main(["sweep", *sweep(text), "sweep.max_failures=1", "sweep.trials=2"]) == 0
    assert "Failed: trial 1 (finetune.weight_decay=0.07): the loss is nan" in capsys.readouterr().out
    assert len(trials()) == 2


@pytest.mark.parametrize(
    ("text", "overrides", "problem"),
    [
        ("finetune.lr: [1e-3]", [], "there is no option 'finetune.lr'; did you mean 'finetune.learning_rate'"),
        ("finetune.learning_rate: {low: 1e-3, high: 2}", [], "sweep.space: finetune.learning_rate=2: should be less"),
        ("finetune.pooling: [default, max]", [], "sweep.space: finetune.pooling=max: should be"),
        ("finetune.epochs: [2, 4]", ["processes=2", "finetune.batch_size=3"], "cannot be split"),
        ("finetune.batch_size: [16, 3]", ["processes=2"], "sweep.space: finetune.batch_size=3: cannot be split"),
        ("runs: [a, b]", [], "sweep.space: runs: is not for a sweep to choose"),
        ("finetune.epochs: {low: 4, high: 8}", [], "finetune.epochs: the recipe's 2 lies outside"),
        (
            "finetune.epochs: [2, 4]",
            ["sweep.metric=f1"],
            "sweep.metric=f1: TextClassification ranks by accuracy, macro_f1, micro_f1, matthews",
        ),
        ("finetune.epochs: [2, 4]", ["sweep.sampler=TBE"], "Optuna has no such sampler; did you mean 'TPE'"),
        ("finetune.epochs: [2, 4]", ["sweep.sampler={name: TPE, seeds: 1}"], "sweep.sampler={"),
        ("finetune.epochs: [2, 4]", ["sweep.pruner={name: median, steps: 1}"], "sweep.pruner={"),
        ("finetune.epochs: [2, 4]", ["finetune.epochs=2,4"], "sweep: a grid and a space, one at a time"),
        ("finetune.epochs: [2, 4]", ["sweep.storage=mine"], "sweep.storage=mine: cannot be reached"),
        ("finetune.epochs: [2, 4]", ["sweep.storage='postgresql+asyncpg9://h/d'"], "sweep.storage=postgresql+asyncpg9"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before_anything_is_trained(
    sweep: Callable, folder: Path, capsys: pytest.CaptureFixture, text: str, overrides: list[str], problem: str
):
    assert main(["sweep", *sweep(f"space:\n  {text}\n", *overrides)]) == 2
    assert problem in capsys.readouterr().err
    assert not list((folder / "runs").glob("finetune-*"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"space": {"a": {"low": 4, "high": 2}}}, "low should be less than high, and they are 4 and 2"),
        ({"space": {"a": {"low": 0, "high": 2, "log": True}}}, "log goes with a low above 0"),
        ({"space": {"a": {"low": 2}}}, "needs low and high, or choices"),
        ({"space": {"a": {"choices": [2], "low": 2}}}, "has choices, so it has no low"),
        ({"space": {"a": {"low": 2, "high": 4, "when": {"b": "x"}}}}, "when: no dimension above it is"),
        ({"trials": None}, "needs trials, max_hours or both"),
        ({"seeds": [1, 1]}, "should be distinct"),
        ({"sampler": {"n_startup_trials": 3}}, "needs name"),
    ],
)
def test_a_sweep_whose_options_do_not_fit_together_is_refused(options: dict[str, object], problem: str):
    with pytest.raises(ValidationError, match=problem):
        Sweep.model_validate({"space": {"finetune.epochs": [2, 4]}, **options})


@pytest.mark.usefixtures("stubbed")
def test_another_score_of_the_task_ranks_the_trials(sweep: Callable, trials: Trials, capsys: pytest.CaptureFixture):
    text = SPACE.replace("trials:", "  finetune.new_epochs: [1] # which no YAML spells out\ntrials:")
    assert main(["sweep", *sweep(text, *INSIDE, "sweep.trials=2", "sweep.pruner=none", "sweep.metric=matthews")]) == 0
    said = capsys.readouterr().out
    assert "validation matthews" in said
    assert re.search(r"The intervals of matthews, .* overlap|No trial scored higher|do not overlap", said)
    for trial in trials():
        (name,) = trial.user_attrs["artefacts"]
        assert trial.value == read_json(Path("runs") / name / METRICS)["validation"]["scores"]["matthews"]


def test_an_unreachable_database_is_told_without_its_password(sweep: Callable, capsys: pytest.CaptureFixture):
    url = "postgresql+psycopg2://me:secret@127.0.0.1:1/sweeps"
    assert main(["sweep", *sweep(SPACE, *INSIDE, f"sweep.storage='{url}'")]) == 2
    said = capsys.readouterr().err
    assert "sweep.storage=postgresql+psycopg2://me:***@127.0.0.1:1/sweeps: cannot be reached (" in said
    assert "secret" not in said


@pytest.mark.usefixtures("stubbed")
def test_a_sweep_in_a_database_goes_on_and_its_url_is_in_no_recipe(sweep: Callable, folder: Path):
    url = f"sqlite:///{folder}/sweeps.db"
    for total in (1, 2):
        assert main(["sweep", *sweep(SPACE, *INSIDE, f"sweep.storage='{url}'", f"sweep.trials={total}")]) == 0
    assert len(optuna.load_study(study_name="default-sweep", storage=url).trials) == 2
    assert not any(url in path.read_text() for path in (folder / "runs").glob("*/recipe.yaml"))


@pytest.mark.usefixtures("stubbed")
def test_a_sweep_that_compares_something_else_wants_another_name(
    sweep: Callable, trials: Trials, capsys: pytest.CaptureFixture
):
    assert main(["sweep", *sweep(SPACE, *INSIDE, "sweep.trials=1")]) == 0
    changed = SPACE.replace("high: 0.1", "high: 0.2")
    assert main(["sweep", *sweep(changed, *INSIDE, "sweep.seeds=[0,1]", "finetune.max_length=64")]) == 2
    said = capsys.readouterr().err
    assert "name=default: there is a sweep of that name" in said
    for difference in (
        "sweep.space.finetune.weight_decay=",
        "sweep.seeds=[0] there, [0, 1] here",
        "finetune.max_length=128 there, 64 here",
    ):
        assert difference in said
    assert len(trials()) == 1
    assert main(["sweep", *sweep(changed, *INSIDE, "name=other", "sweep.trials=1")]) == 0


@pytest.mark.usefixtures("stubbed")
def test_a_journal_that_was_cut_short_goes_on_and_one_with_garbage_is_told(
    sweep: Callable, trials: Trials, folder: Path, capsys: pytest.CaptureFixture
):
    overrides = sweep(SPACE, *INSIDE, "sweep.trials=1")
    assert main(["sweep", *overrides]) == 0
    whole = journal(folder).read_bytes()
    journal(folder).write_bytes(whole[:-9])
    assert main(["sweep", *overrides]) == 0  # the end of the trial was not told, so it is run again
    assert "its last line was cut short, and is in journal.cut now" in capsys.readouterr().out
    assert whole.endswith((folder / "runs/default-sweep/journal.cut").read_bytes().rstrip() + whole[-9:])
    assert states(trials()) == ["FAIL", "COMPLETE"]
    lines = journal(folder).read_bytes().splitlines(keepends=True)
    journal(folder).write_bytes(b"".join([*lines[:3], b"garbage\n", *lines[3:]]))
    assert main(["sweep", *overrides]) == 2
    assert f"{journal(folder)}: line 4 cannot be read; put a copy of it back" in capsys.readouterr().err


def test_a_report_of_no_sweep_tells_how_one_begins(sweep: Callable, folder: Path, capsys: pytest.CaptureFixture):
    assert main(["sweep-report", "name=never"]) == 2
    assert "there is no sweep never-sweep in runs; make sweep sweep=finetune begins one" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", ["finetune", "texts", "generation", "adapt"])
def test_every_space_of_the_project_fits_its_tasks(
    name: str, folder: Path, tiny_overrides: list[str], seq2seq_checkpoint: Path, capsys: pytest.CaptureFixture
):
    if name == "generation":
        rows = "".join(f'{{"document": "a film number {n}", "summary": "film {n}"}}\n' for n in range(60))
        (folder / "rows.jsonl").write_text(rows)
        task = ["task=summarization", f"task.path={folder / 'rows.jsonl'}", "task.max_target_length=8"]
        recipe = [*task, f"model.checkpoint={seq2seq_checkpoint}", "model.sha256=null"]
    else:
        recipe = tiny_overrides
    assert main(["sweep", *recipe, f"sweep={name}", "sweep.max_hours=1e-9"]) == 0, capsys.readouterr().err


@pytest.fixture
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server of the test's own, from Debian's packages."""
    binaries = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/bin")]
    found = next((path for path in reversed(binaries) if (path / "initdb").exists()), None)
    if found is None or importlib.util.find_spec("psycopg2") is None:
        pytest.skip("NOT TRIED: needs PostgreSQL (apt-get install postgresql) and psycopg2-binary")
    # The server refuses to run as root.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(home, "postgres", "postgres")
    data = home / "data"
    subprocess.run(
        [*user, found / "initdb", "-D", data, "-U", "me", "-A", "trust"], check=True, capture_output=True, cwd=home
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1"
    control = [*user, found / "pg_ctl", "-D", data, "-w", "-o", options, "-l", home / "log"]
    subprocess.run([*control, "start"], check=True, capture_output=True, cwd=home)
    yield f"postgresql+psycopg2://me@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "stop", "-m", "immediate"], check=False, capture_output=True, cwd=home)
    shutil.rmtree(home)


@pytest.mark.slow
def test_a_dead_workers_trial_in_postgresql_is_run_again_once_by_one_worker(
    sweep: Callable, folder: Path, postgres: str
):
    shared = [f"sweep.storage={{url: '{postgres}', heartbeat_interval: 1}}", "sweep.trials=5", "sweep.pruner=none"]
    overrides = sweep(SPACE, *INSIDE, "finetune.epochs=30", *shared)
    # Each on a machine of its own: no folder is shared.
    first, *others = (start(*overrides, f"runs={folder / str(number)}") for number in range(3))

    def study() -> optuna.Study:
        return optuna.load_study(study_name="default-sweep", storage=postgres)

    end = time.monotonic() + 120
    while not list((folder / "0").glob("finetune-*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    mine = int(re.findall(r"\d+", next((folder / "0").glob("default-sweep/.trial-*.lock")).name)[0])
    first.kill()
    first.communicate()
    said = [worker.communicate(timeout=400) for worker in others]
    assert [worker.returncode for worker in others] == [0, 0], said
    found = study().trials
    assert found[mine].state == TrialState.FAIL
    assert [trial.user_attrs.get("again") for trial in found].count(mine) == 1
    assert states(found).count("COMPLETE") == 5
