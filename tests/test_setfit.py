"""SetFit as a reference of studies: the real library, on a tiny model."""

import pytest
from samples import jsonl, reviews

from ulmfit_style.artefacts.directory import METRICS, read_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.stages import setfit


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_it_learns_the_rows_and_is_scored_on_those_of_all_others_once(
    finetuned: list[str], capsys: pytest.CaptureFixture[str]
):
    config = compose([*finetuned, "task.train_samples=60"])
    assert setfit.is_possible(config)
    directory = setfit.run(config)
    metrics = read_json(directory / METRICS)
    assert metrics["metric"] == "accuracy"
    assert metrics["test"]["SetFit"]["rows"] == read_json(config.runs / "default/finetune" / METRICS)["test"]["rows"]
    assert metrics["test"]["SetFit"]["scores"]["accuracy"] > 0.6  # a fifth of the good reviews are called bad
    told = capsys.readouterr()
    assert told.out.startswith("  SetFit: accuracy")
    assert told.err == ""
    assert setfit.run(config) == directory
    assert capsys.readouterr().out == ""
    other = compose([*finetuned, "task.train_samples=60", "finetune.seed=1"])
    assert setfit.lineage.setfit(other).directory != directory


def test_it_takes_one_text_and_its_class(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label} for text, label, _ in reviews(8)])
    assert not setfit.is_possible(compose(["task=text_regression", f"task.path={path}"]))
    assert not setfit.is_possible(compose(["task=text_classification", f"task.path={path}", "task.text_pair=other"]))
