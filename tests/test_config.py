import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import compose
from ulmfit_style.cli.overrides import grid
from ulmfit_style.errors import ConfigError
from ulmfit_style.recipe import Config, from_recipe

YAMLS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


def test_the_conf_folder_has_the_files_that_these_tests_compose():
    assert len(YAMLS) == 53
    assert {path.parent.name for path in YAMLS} == {
        *("model", "corpus", "task", "pretrain", "adapt", "finetune", "study", "sweep", "experiment")
    }


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_yaml_composes_into_the_schema(path: Path):
    needed = {"corpus/file": ["corpus.path=x.txt"], "task/none": ["corpus=file", "corpus.path=x.txt"]}
    needed["experiment/mini_en"] = ["corpus.path=x.txt"]
    needed |= {
        f"task/{kind}": ["task.path=x.csv"]
        for kind in (
            *("text_classification", "multi_label_classification", "text_regression", "token_classification"),
            *("question_answering", "summarization", "translation", "text_generation"),
        )
    }
    needed["task/translation"] += ["task.source_language=en", "task.target_language=de"]
    group, choice = path.parent.name, path.stem
    assert isinstance(compose([f"{group}={choice}", *needed.get(f"{group}/{choice}", [])]), Config)


def test_an_override_reaches_its_field_with_or_without_a_plus():
    config = compose(["finetune.learning_rate=3e-5", "+task.train_samples=300", "++task.group=null"])
    assert config.finetune.learning_rate == 3e-5
    assert config.task.train_samples == 300
    assert config.task.group is None


def test_an_option_that_no_yaml_spells_out_can_be_overridden():
    assert compose(["task.test_samples=7"]).task.test_samples == 7


def test_a_config_survives_its_recipe():
    config = compose(["experiment=smoke", "adapt.seed=3"])
    assert from_recipe(config.recipe()) == config


def test_all_unknown_keys_and_choices_are_listed_at_once_with_the_nearest_name():
    assert problems("finetune.lr=1", "tusk=1", "task=rotten", "task.txt=a") == [
        "task=rotten: there is no such task; did you mean 'rotten_tomatoes'? "
        "(there are: aclsum, ag_news, imdb, multi_label_classification, none, opus_books, question_answering, "
        "rotten_tomatoes, squad, squad_v2, sst2, summarization, text_classification, text_generation, text_regression, "
        "token_classification, translation, trec, tweet_eval, xsum)",
        "finetune.lr=1: there is no option 'finetune.lr'; "
        "did you mean 'finetune.learning_rate' or 'finetune.lora_rank'?",
        "tusk=1: there is no option 'tusk'; did you mean 'task'?",
        "task.txt=a: there is no option 'task.txt'; did you mean 'task.text'?",
    ]


def test_a_seed_that_numpy_does_not_take_is_refused():
    assert problems("finetune.seed=1700000000") == ["finetune.seed=1700000000: should be less than or equal to 999999"]


def test_all_wrong_values_are_listed_at_once_in_the_users_spelling():
    assert problems("adapt.epochs=-1", "finetune.batch_size=x", "compare=maybe", "task.test_ratio=2") == [
        "task.test_ratio=2: should be less than 1",
        "compare=maybe: should be a valid boolean, unable to interpret input",
        "adapt.epochs=-1: should be greater than 0",
        "finetune.batch_size=x: should be a valid integer, unable to parse string as an integer",
    ]


def test_a_required_option_is_reported_with_its_meaning():
    (problem,) = problems("task=text_classification")
    assert problem.startswith("task.path: is required (The file of labelled rows")


def test_a_value_that_hydra_cannot_read_is_shown_quoted():
    (problem,) = problems("task.path=my file (1).csv")
    remedy = """task.path="'my file (1).csv'\""""
    assert problem == f"task.path=my file (1).csv: cannot be read as an override; write {remedy}"
    assert compose(["task.path='my file (1).csv'"]).task.path.train == "my file (1).csv"


def test_a_token_is_no_option_and_is_not_repeated():
    (problem,) = problems("hub.token=hf_secret")
    assert "HF_TOKEN" in problem
    assert "hf_secret" not in problem


def test_options_of_a_stage_that_is_switched_off_are_refused():
    assert problems("adapt=none", "adapt.epochs=2") == ["adapt.epochs=2: there is no adapt here (adapt=none)"]


def test_adapting_to_the_text_of_no_task_is_refused():
    (problem,) = problems("task=none")
    assert problem.startswith("corpus=task: there is no task")


def test_a_name_cannot_leave_the_runs_folder():
    assert len(problems("name=../escape")) == 1


def test_a_task_outside_the_package_is_imported_by_its_path():
    recipe = compose().recipe()
    recipe["task"]["_target_"] = "collections.Counter"
    with pytest.raises(ConfigError, match="is not a subclass of"):
        from_recipe(recipe)
    recipe["task"]["_target_"] = "nowhere.Task"
    with pytest.raises(ConfigError, match="cannot be imported"):
        from_recipe(recipe)


def test_a_grid_is_the_product_of_the_swept_options():
    points = grid(["finetune.seed=1,2", "adapt.seed=0", "finetune.epochs=1,3"])
    assert points == [
        ["finetune.seed=1", "adapt.seed=0", "finetune.epochs=1"],
        ["finetune.seed=1", "adapt.seed=0", "finetune.epochs=3"],
        ["finetune.seed=2", "adapt.seed=0", "finetune.epochs=1"],
        ["finetune.seed=2", "adapt.seed=0", "finetune.epochs=3"],
    ]


def test_a_glob_in_a_grid_spans_the_choices_of_its_group():
    assert grid(["model=glob(*bert)"]) == [
        ["model=bert"],
        ["model=distilbert"],
        ["model=mini_bert"],
        ["model=mini_eurobert"],
        ["model=modernbert"],
    ]


def test_a_grid_that_cannot_be_counted_is_refused():
    with pytest.raises(ConfigError, match="INTERVAL"):
        grid(["finetune.learning_rate=interval(1e-5,1e-4)"])


def test_a_wrong_option_is_answered_without_a_traceback_and_without_torch():
    code = "import sys; from ulmfit_style.__main__ import main; code = main(['adapt', 'finetune.lr=1']); "
    code += "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "did you mean 'finetune.learning_rate' or 'finetune.lora_rank'?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - started < 10  # 1 s on an idle machine; the bound only catches a stray import


@pytest.fixture
def own_yaml(tmp_path: Path) -> Callable[..., str]:
    """Write YAMLs of the user's own, and return the override that makes them known."""

    def write(**files: str) -> str:
        for name, text in files.items():
            path = tmp_path / "my conf" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return f"hydra.searchpath=['{tmp_path / 'my conf'}']"

    return write


def test_a_folder_of_ones_own_adds_choices_to_the_groups(own_yaml):
    path = own_yaml(task__mine="_target_: ulmfit_style.tasks.text_classification.TextClassification\npath: my.csv\n")
    assert compose([path, "task=mine", "task.text=a", "task.label=b"]).task.path.train == "my.csv"
    assert "did you mean 'mine'? (there are: aclsum, ag_news, imdb, mine, " in problems(path, "task=main")[0]


def test_a_mistake_in_a_yaml_is_told_with_its_file(own_yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = own_yaml(finetune__mine="defaults: [plain]\nepoch: 3\nseed: many\ntrainer: {lerning_rate: 1}\n")
    file = "my conf/finetune/mine.yaml"
    unknown, wrong, trainer = sorted(problems(path, "finetune=mine"))
    assert unknown == f"finetune.epoch: there is no such option; did you mean 'finetune.epochs'? (in {file})"
    assert wrong.startswith("finetune.seed=many: should be a valid integer")
    assert wrong.endswith(f"(in {file})")
    assert trainer.startswith("finetune.trainer.lerning_rate: TrainingArguments has no such field")
    assert trainer.endswith(f"(in {file})")


def test_a_mistake_in_a_yaml_over_the_whole_recipe_is_told_with_its_file(
    own_yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = own_yaml(experiment__mine="# @package _global_\nfinetune: {seed: many}\n")
    assert problems(path, "experiment=mine")[0].endswith("(in my conf/experiment/mine.yaml)")


def test_a_typed_mistake_is_blamed_on_no_yaml():
    assert problems("finetune.seed=many")[0].endswith("as an integer")


def test_a_yaml_that_cannot_be_parsed_is_told_with_its_file(own_yaml, tmp_path: Path):
    path = own_yaml(finetune__mine="epochs: [1\nseed: 2\n")
    (problem,) = problems(path, "finetune=mine")
    assert str(tmp_path / "my conf/finetune/mine.yaml") in problem
    assert "line 2" in problem


def test_a_folder_of_ones_own_has_to_be_there():
    assert problems("hydra.searchpath=[nowhere]") == ["nowhere: there is no such folder of configs"]


def test_a_yaml_of_ones_own_that_would_never_be_read_is_refused(own_yaml, tmp_path: Path):
    (problem,) = problems(own_yaml(finetune__plain="epochs: 1\n"))
    assert problem == (
        f"{tmp_path / 'my conf/finetune/plain.yaml'}: the program has a finetune/plain.yaml of its own; "
        "choose another name"
    )


def test_unknown_keys_unknown_choices_and_wrong_values_are_told_together():
    found = "\n".join(problems("model=minlm", "finetune.lr=1", "finetune.epochs=many", "adapt.mask_probability=2"))
    for what in ("model=minlm: ", "finetune.lr=1: ", "finetune.epochs=many: ", "adapt.mask_probability=2: "):
        assert what in found
