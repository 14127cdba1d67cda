"""The presets of conf/: those of models run with tiny weights of their own architecture, and the Hub has all files."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from huggingface_hub import HfApi, close_session, constants, snapshot_download
from recipes import KINDS, recipe
from tiny_presets import PRESETS, SCRATCH
from transformers import AutoConfig, AutoModel

from ulmfit_style.__main__ import main
from ulmfit_style.cli import CONF
from ulmfit_style.data.hub import PREFIX, HubFile, parse
from ulmfit_style.models.checkpoints import ENDINGS, WEIGHTS

CHOOSES = {"auto"}
"""The preset that is one of the others."""

GENERAL = "package:ulmfit_style/general/state_of_the_union.txt"
WRITING = ("summaries", "translations", "completions")
DECODERS = ("gpt2", "smollm2", "smollm2_135m", "mini_llama", "awd_lstm", "awd_lstm_backward")
BOTH = ("t5_small", "bart_base")
RECURRENT = ("rnn_attention", "rnn_seq2seq")
"""Encoder-decoders that only write, from random weights."""

WITHOUT_CROSS_ATTENTION = ("distilbert", "modernbert", "mini_eurobert")
REFUSED = {
    ("bart_base", "entities"): "needs one that AutoModelForTokenClassification knows",
    **dict.fromkeys(
        [(preset, "questions") for preset in ("mini_eurobert", "awd_lstm", "awd_lstm_backward")],
        "needs one that AutoModelForQuestionAnswering knows",
    ),
    **dict.fromkeys(
        [(preset, kind) for preset in RECURRENT for kind in KINDS if kind not in WRITING], "needs one that AutoModelFor"
    ),
    **dict.fromkeys([("awd_lstm_backward", kind) for kind in WRITING], "needs a model that writes from left to right"),
}
"""What a model cannot do, and what is said."""

STEP = ["finetune.max_steps=1", "finetune.epochs=1", "task.train_samples=16"]


def overrides(preset: str, kind: str, folder: Path) -> list[str]:
    """Return a recipe of one step with the tiny model of a preset."""
    if preset in SCRATCH:
        sizes = [f"model.architecture.{name}={size}" for name, size in SCRATCH[preset].items()]
        given = [option for option in recipe(kind, folder, folder) if not option.startswith("model.checkpoint=")]
        return [f"model={preset}", *sizes, "model.tokenizer.vocab_size=400", *given, *STEP]
    checkpoint = PRESETS[preset].save(folder / "checkpoint")
    return [f"model={preset}", "model.revision=null", *recipe(kind, folder, checkpoint), *STEP]


def answered(folder: Path, stages: list[str], given: list[str]) -> int:
    """Run the stages, answer the rows, and return how many answers there are."""
    rows, answers = next(folder.glob("rows.*")), folder / "answers.jsonl"
    assert main([*stages, "predict", *given, f"predict.input={rows}", f"predict.output={answers}"]) == 0
    return len([json.loads(line) for line in answers.read_text().splitlines()])


def test_every_preset_of_a_model_has_a_tiny_one():
    assert {path.stem for path in CONF.glob("model/*.yaml")} == {*PRESETS, *SCRATCH, *CHOOSES}


@pytest.mark.parametrize("preset", [*PRESETS, *SCRATCH])
def test_a_preset_is_adapted_compared_and_fine_tuned_and_answers(preset: str, tmp_path: Path):
    kind = "translations" if preset in RECURRENT else "text classification"
    given = overrides(preset, kind, tmp_path)
    given = [option for option in given if option not in ("adapt=none", "compare=false")]
    short = ["max_length=32", "batch_size=16"]
    given += ["adapt.general=null", *(f"{stage}.{option}" for stage in ("adapt", "pretrain") for option in short)]
    given += [f"pretrain.path={GENERAL}"] if preset in SCRATCH else []
    stages = [*(["pretrain"] if preset in SCRATCH else []), "adapt", "finetune"]
    assert answered(tmp_path, stages, given) > 0
    made = {path.name for path in (tmp_path / "runs/default").iterdir()}
    assert {"adapt", "finetune", "finetune-not-adapted", "references"} <= made


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text classification"])
@pytest.mark.parametrize("preset", [*PRESETS, *SCRATCH])
def test_a_preset_does_every_kind_of_task_or_says_that_it_cannot(
    preset: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    given = overrides(preset, kind, tmp_path)
    given += ["pretrain=none"] if preset in SCRATCH else []
    if kind in WRITING and preset not in (*DECODERS, *BOTH, *RECURRENT):
        decoder = "scratch" if preset in WITHOUT_CROSS_ATTENTION else "same"
        assert main(["plan", "finetune", *given]) == 2
        if preset in SCRATCH:
            return
        assert "give it a decoder: model.decoder=same, or scratch" in capsys.readouterr().err
        given += [f"model.decoder={decoder}", "model.decoder_layers=1", "model.decoder_tokenizer.vocab_size=400"]
    if message := REFUSED.get((preset, kind)):
        assert main(["finetune", *given]) == 2
        assert message in capsys.readouterr().err
    else:
        assert answered(tmp_path, ["finetune"], given) > 0


class Preset(NamedTuple):
    name: str
    kind: str
    repository: str
    revision: str
    files: tuple[str, ...]


def presets() -> Iterator[Preset]:
    for path in sorted(CONF.glob("model/*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        checkpoint = values.get("checkpoint", "")
        if "/" in checkpoint and ":" not in checkpoint:
            files = ("config.json", WEIGHTS)
            yield Preset(f"model={path.stem}", "model", checkpoint, values.get("revision", ""), files)
    for path in sorted(CONF.glob("task/*.yaml")):
        source = yaml.safe_load(path.read_text(encoding="utf-8")).get("path")
        references = source.values() if isinstance(source, dict) else [str(source)]
        files = [parse("task.path", reference) for reference in references if reference.startswith(PREFIX)]
        if files:
            ((repository, revision),) = {file[:2] for file in files}  # all its files are read at one commit
            yield Preset(f"task={path.stem}", "dataset", repository, revision or "", tuple(file.name for file in files))


def test_every_preset_from_the_hub_is_pinned_to_a_commit():
    assert len(list(presets())) == 18
    assert [preset.name for preset in presets() if not re.fullmatch("[0-9a-f]{40}", preset.revision)] == []


@cache
def silence() -> str | None:
    """Return why the Hub does not answer, if it does not."""
    try:
        HfApi().repo_info("google-bert/bert-base-uncased", timeout=10)
    except Exception as error:  # whichever HTTP library it is
        return type(error).__name__
    return None


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test ask the Hub, which all others may not."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()  # it was made offline
    if (error := silence()) is not None:
        pytest.skip(f"the Hub does not answer ({error})")
    yield
    close_session()


@pytest.mark.hub
@pytest.mark.parametrize("preset", list(presets()), ids=lambda preset: preset.name)
def test_the_hub_has_the_files_of_every_preset(preset: Preset, online: None):
    info = HfApi().repo_info(preset.repository, revision=preset.revision, repo_type=preset.kind)
    assert set(preset.files) <= {sibling.rfilename for sibling in info.siblings or []}


@pytest.mark.hub
@pytest.mark.parametrize(
    "preset", [preset for preset in presets() if preset.kind == "model"], ids=lambda preset: preset.name
)
def test_the_config_and_the_tokenizer_of_a_preset_take_a_step(preset: Preset, online: None, tmp_path: Path):
    """The weights are random, and the layers one."""
    files = [f"*{ending}" for ending in ENDINGS if ending != ".safetensors"]
    source = snapshot_download(preset.repository, revision=preset.revision, allow_patterns=files)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in Path(source).iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    config = AutoConfig.from_pretrained(source)
    config.num_hidden_layers = 1
    AutoModel.from_config(config).save_pretrained(checkpoint)
    given = [preset.name, "model.revision=null", *recipe("text classification", tmp_path, checkpoint), *STEP]
    assert answered(tmp_path, ["finetune"], given) == 120


def test_a_preset_names_the_licence_of_its_own_source():
    licences = 0
    for path in [*CONF.glob("model/*.yaml"), *CONF.glob("task/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        if found := re.search(r"^license: \S+ of (\S+)$", text, re.MULTILINE):
            assert re.search(rf"^(checkpoint|path|  train): {re.escape(found[1])}(@|$)", text, re.MULTILINE), path
            licences += 1
        assert "license:" not in text.replace(found[0] if found else "", "")
    assert licences == 14


def test_a_reference_to_a_file_of_the_hub_is_taken_apart():
    assert parse("task.path", "hub:a/b@main/data/x.csv") == HubFile("a/b", "main", "data/x.csv")
    assert parse("task.path", "hub:a/b/x.csv") == HubFile("a/b", None, "x.csv")
