"""From YAMLs and overrides to a config, and what is said of mistakes."""

import itertools
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml

from ulmfit_style.cli import CONF
from ulmfit_style.cli.compose import TRUSTED_VARIABLES, compose, grid
from ulmfit_style.config.commands import Evaluate
from ulmfit_style.errors import ConfigError
from ulmfit_style.recipe import TRUSTED_MODULES, Config, from_recipe, load

GROUPS = {"model": 19, "corpus": 2, "task": 20, "pretrain": 2, "adapt": 3, "finetune": 6, "study": 4, "sweep": 5}
"""How many YAMLs each has, beside those of whole recipes."""

NEEDED = {
    "corpus=file": ["corpus.path=x.txt"],
    "task=none": ["corpus.path=x.txt"],
    "task=translation": ["task.source_language=en", "task.target_language=de"],
}
"""What a YAML leaves to the user, beside the path of a task's data."""


def choices(group: str) -> list[str]:
    return [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))]


def needed(choice: str) -> list[str]:
    text = (CONF / f"{choice.replace('=', '/')}.yaml").read_text()
    return [*NEEDED.get(choice, []), *(["task.path=x.csv"] if "path: ???" in text else [])]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


def test_the_conf_folder_has_the_groups_that_these_tests_compose():
    assert {group: len(choices(group)) for group in GROUPS} == GROUPS
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {*GROUPS, "experiment", "schema"}


@pytest.mark.parametrize("row", [*zip_longest(*map(choices, GROUPS))], ids=lambda row: " ".join(filter(None, row)))
def test_every_yaml_composes_into_the_schema(row: tuple[str | None, ...]):
    chosen = [choice for choice in row if choice is not None]
    assert isinstance(compose([*chosen, *(option for choice in chosen for option in needed(choice))]), Config)


@pytest.mark.parametrize("overrides", [["experiment=smoke"], ["experiment=mini_en", "corpus.path=x.txt"]], ids=" ".join)
def test_a_config_survives_its_recipe(overrides: list[str]):
    config = compose([*overrides, "finetune.seed=3"])
    assert from_recipe(config.recipe()) == config
    earlier = {name: value for name, value in config.recipe().items() if name != "fast"}
    assert from_recipe(earlier) == config


def test_an_override_reaches_its_field_with_or_without_a_plus_and_whether_or_not_a_yaml_spells_it_out():
    config = compose(
        ["finetune.learning_rate=3e-5", "+task.train_samples=300", "++task.group=null", "task.test_samples=7"]
    )
    assert config.finetune.learning_rate == 3e-5
    assert config.task.train_samples == 300
    assert config.task.group is None
    assert config.task.test_samples == 7


def test_all_mistakes_are_listed_at_once_in_the_users_spelling_with_the_nearest_name():
    assert problems("finetune.lr=1", "tusk=1", "task=rotten", "task.txt=a", "adapt.epochs=-1", "compare=maybe") == [
        "task=rotten: there is no such task; did you mean 'rotten_tomatoes'? "
        "(there are: aclsum, ag_news, imdb, multi_label_classification, none, opus_books, question_answering, "
        "rotten_tomatoes, squad, squad_v2, sst2, summarization, text_classification, text_generation, text_regression, "
        "token_classification, translation, trec, tweet_eval, xsum)",
        "compare=maybe: should be a valid boolean, unable to interpret input",
        "adapt.epochs=-1: should be greater than 0",
        "task.txt: there is no such option; did you mean 'task.text'?",
        "finetune.lr: there is no such option; did you mean 'finetune.learning_rate' or 'finetune.lora_rank'?",
        "tusk: there is no such option; did you mean 'task'?",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("finetune.seed=1700000000", "finetune.seed=1700000000: should be less than or equal to 999999"),
        ("task=text_classification", "task.path: is required (The file of labelled rows"),
        ("hub.token=hf_secret", "hub.token: a token is never an option; set HF_TOKEN in the environment"),
        ("hydra.searchpath=[nowhere]", "nowhere: there is no such folder of configs"),
        (
            "hydra/launcher=nomad_batch",
            "hydra/launcher=nomad_batch: there is no such hydra/launcher (there are: basic, joblib",
        ),
        ("adapt=null", "adapt=null: there is no such adapt; did you mean 'none'? (there are: none, plain, ulmfit)"),
    ],
)
def test_a_mistake_is_told(override: str, problem: str):
    (found,) = problems(override)
    assert found.startswith(problem)
    assert "hf_secret" not in found


@pytest.mark.parametrize(
    "override",
    ["hydra/launcher=nomad_batch", "hydra/launcher=null", "hydra/sweeper=optuna", "hydra/sweeper=ulmfit_style"],
)
def test_a_plugin_that_is_not_there_is_told_with_where_others_are_described(override: str):
    (found,) = problems(override)
    assert found.startswith(f"{override}: there is no such {override.partition('=')[0]} (there are: basic")
    assert found.endswith("; docs/how-to/sweeps.md tells what others need)")


def test_a_value_that_hydra_cannot_read_is_shown_quoted():
    (problem,) = problems("task.path=my file (1).csv")
    remedy = """task.path="'my file (1).csv'\""""
    assert problem == f"task.path=my file (1).csv: cannot be read as an override; write {remedy}"
    assert compose(["task.path='my file (1).csv'"]).task.path.train == "my file (1).csv"


def test_options_of_a_stage_that_is_switched_off_are_refused():
    assert problems("adapt=none", "adapt.epochs=2") == ["adapt.epochs=2: there is no adapt here (adapt=none)"]


@pytest.mark.parametrize(
    ("target", "message"), [("collections.Counter", "is not a subclass of"), ("nowhere.Task", "cannot be imported")]
)
def test_a_task_outside_the_package_is_imported_by_its_path(target: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRUSTED_MODULES, "collections,nowhere")
    recipe = compose().recipe()
    recipe["task"]["_target_"] = target
    with pytest.raises(ConfigError, match=message):
        from_recipe(recipe)


def test_no_module_is_imported_that_the_user_did_not_list(monkeypatch: pytest.MonkeyPatch):
    recipe = compose().recipe()
    recipe["task"]["_target_"] = "antigravity.Task"
    with pytest.raises(
        ConfigError, match="is not of this program; if you trust its code, set ULMFIT_STYLE_MODULES=anti"
    ):
        from_recipe(recipe)
    assert "antigravity" not in sys.modules


def test_the_environment_is_read_only_where_the_user_allows_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "s3cret")
    assert compose(["runs=${oc.env:HOME}/runs"]).runs == Path("/home/me/runs")
    [problem] = problems("runs=${oc.env:DATA}")
    assert "DATA of the environment would be written to recipes and model cards; if it is no secret, set ULM" in problem
    assert "s3cret" not in problem
    monkeypatch.setenv(TRUSTED_VARIABLES, "OTHER,DATA")
    assert compose(["runs=${oc.env:DATA}"]).runs == Path("s3cret")


def test_a_yaml_that_would_fill_the_memory_is_refused(write_yaml, tmp_path: Path):
    lines = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise("abcdefgh")]
    bomb = "\n".join(["a: &a [x]", *lines])
    assert problems(write_yaml("task/mine.yaml", bomb), "task=mine") == [
        "my conf/task/mine.yaml: repeats parts of itself by *name more than 20 times; write them out"
    ]
    (tmp_path / "recipe.yaml").write_text(bomb)
    with pytest.raises(ConfigError, match="repeats parts"):
        load(tmp_path / "recipe.yaml")


def test_what_made_a_model_is_read_whatever_another_version_does_with_models(tmp_path: Path):
    made_by = compose(["evaluate.split=train", "finetune.seed=7"])
    values = made_by.recipe()
    values["evaluate"]["gone"] = "an option of another version"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert load(tmp_path / "recipe.yaml") == made_by.model_copy(update={"evaluate": Evaluate()})
    values["finetune"]["gone"] = 1
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"finetune\.gone: there is no such option"):
        load(tmp_path / "recipe.yaml")


def test_a_grid_is_the_product_of_the_swept_options_and_one_that_cannot_be_counted_is_refused():
    minis = ("mini_bert", "mini_eurobert", "mini_llama")
    assert grid(["finetune.seed=1,2", "adapt.seed=0", "model=glob(mini_*)"]) == [
        [f"finetune.seed={seed}", "adapt.seed=0", f"model={name}"] for seed in (1, 2) for name in minis
    ]
    equal = grid(["finetune.learning_rate=1e-3,0.001,2e-3", "finetune.seed=range(1,3)"])
    assert [float(rate.split("=")[1]) for rate, _ in equal] == [1e-3, 1e-3, 2e-3, 2e-3]
    with pytest.raises(ConfigError, match="INTERVAL"):
        grid(["finetune.learning_rate=interval(1e-5,1e-4)"])


@pytest.fixture
def write_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Write a YAML of the user's own, and return the override that makes it known."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        path = Path("my conf") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return "hydra.searchpath=['my conf']"

    return write


def test_a_folder_of_ones_own_adds_choices_to_the_groups(write_yaml):
    kind = "_target_: ulmfit_style.tasks.text_classification.TextClassification"
    path = write_yaml("task/mine.yaml", f"{kind}\npath: my.csv\n")
    assert compose([path, "task=mine", "task.text=a", "task.label=b"]).task.path.train == "my.csv"
    assert "did you mean 'mine'? (there are: aclsum, ag_news, imdb, mine, " in problems(path, "task=main")[0]


def test_a_yaml_of_ones_own_that_would_never_be_read_is_refused(write_yaml):
    file = "my conf/finetune/plain.yaml: the program has a finetune/plain.yaml of its own; choose another name"
    assert problems(write_yaml("finetune/plain.yaml", "epochs: 1\n")) == [file]
