"""What becomes of a checkpoint's weights: all of the body, and the outputs of the head that have the same labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from samples import save_bert, tiny_sizes, tiny_tokenizer

from ulmfit_style import console
from ulmfit_style.artefacts import seal
from ulmfit_style.artefacts.directory import MANIFEST, NOT_SEALED, write_json
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.tasks.base import named_outputs

IDS = torch.tensor([[2, 5, 6, 3]])


def load(folder: Path, labels: Sequence[str]) -> Any:
    """Return the classifier that fine-tuning begins with."""
    transformers.set_seed(1)
    auto_class = transformers.AutoModelForSequenceClassification
    return checkpoints.load_model(auto_class, folder, **named_outputs(labels)).model.eval()


def load_pooled(folder: Path, labels: Sequence[str]) -> Any:
    """Return the classifier with a pooled head that fine-tuning begins with."""
    transformers.set_seed(1)
    return checkpoints.load_pooled(folder, "mean", named_outputs(labels))[0].eval()


Load = Callable[[Path, Sequence[str]], Any]


def test_a_model_that_is_made_again_is_the_same_checkpoint_and_one_of_other_weights_is_not(tmp_path: Path):
    def identity(name: str, seed: int, seconds: float) -> Any:
        transformers.set_seed(seed)
        save_bert(tmp_path / name)
        folder = tmp_path / name
        write_json(folder / MANIFEST, seal.signed(folder, {"seconds": seconds}, NOT_SEALED))
        return checkpoints.resolve(Model(checkpoint=str(folder)), "model.checkpoint").identity

    assert identity("first", seed=1, seconds=2.5) == identity("again", seed=1, seconds=3.5)
    assert identity("other", seed=2, seconds=2.5) != identity("first", seed=1, seconds=2.5)


@pytest.fixture(params=[load, load_pooled])
def classifier(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Load, Path, Any]:
    """A saved classifier of Neg, Pos and Mixed, of the architecture or pooled; it itself, and what reads it."""
    monkeypatch.setattr(console, "_SAID", set())
    model = request.param(save_bert(tmp_path / "body"), ["Neg", "Pos", "Mixed"])
    checkpoints._output(model)[1].weight.data *= 3  # unlike new ones by the same seed
    model.save_pretrained(tmp_path / "classifier")
    return request.param, tmp_path / "classifier", model


def test_a_head_of_the_same_labels_answers_as_before_whatever_their_order(
    classifier: tuple[Load, Path, Any], capsys: pytest.CaptureFixture[str]
):
    read, folder, before = classifier
    model = read(folder, ["mixed", "neg", "pos"])
    assert torch.allclose(model(IDS).logits[0], before(IDS).logits[0, [2, 0, 1]], atol=1e-6)
    assert model.config.id2label == {0: "mixed", 1: "neg", 2: "pos"}
    assert "put in the order of the labels: mixed, neg, pos" in capsys.readouterr().out
    assert torch.equal(read(folder, ["Neg", "Pos", "Mixed"])(IDS).logits, before(IDS).logits)


@pytest.mark.parametrize("labels", [["red", "green", "blue"], ["red", "green"]])
def test_other_labels_get_new_outputs_and_it_is_said(
    classifier: tuple[Load, Path, Any], labels: list[str], capsys: pytest.CaptureFixture[str]
):
    read, folder, before = classifier
    model = read(folder, labels)
    (name, new), (_, old) = checkpoints._output(model), checkpoints._output(before)
    assert not torch.isin(new.weight, old.weight).any()
    assert new.weight.std() > 0.01
    assert name in ("classifier", "head.1")
    assert "has other labels (Neg, Pos, Mixed), and is replaced by a new one" in capsys.readouterr().out


def test_the_labels_that_a_head_knows_keep_their_outputs_beside_new_ones(
    classifier: tuple[Load, Path, Any], capsys: pytest.CaptureFixture[str]
):
    read, folder, before = classifier
    for labels, kept in ((["Pos", "new", "Neg", "other"], {0: 1, 2: 0}), (["Pos", "Neg"], {0: 1, 1: 0})):
        model = read(folder, labels)
        logits = model(IDS).logits[0, list(kept)]
        assert torch.allclose(logits, before(IDS).logits[0, list(kept.values())], atol=1e-6)
        assert len(set(checkpoints._output(model)[1].weight.std(1).tolist())) == len(labels)  # none is zero
        told = f"head keeps 2 of its 3 outputs, and gets {len(labels) - 2} new ones"
        assert told in capsys.readouterr().out


def test_labels_without_names_are_numbers(tmp_path: Path):
    config = transformers.BertConfig(**tiny_sizes(tiny_tokenizer()), num_labels=3)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path, ["0", "1", "2"]).classifier.weight, model.classifier.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: f"module.{name}", r"it has others that fit nowhere: module\.embeddings\.LayerNorm\.bias"),
        (lambda name: None if ".layer.1." in name else name, r"16 weights .*: encoder\.layer\.1\.attention\.self"),
        (lambda name: name if name.startswith("embeddings") else None, "and 29 more; they would begin at random"),
        (lambda name: None if name == "embeddings.LayerNorm.bias" else name, r"1 weights .*: embeddings\.LayerNorm\.b"),
    ],
)
@pytest.mark.parametrize("class_name", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_weights_that_the_body_lacks_are_listed(
    tmp_path: Path, class_name: str, change: Callable[[str], str | None], message: str
):
    file = save_bert(tmp_path) / checkpoints.WEIGHTS
    weights = {new: weight for name, weight in load_file(file).items() if (new := change(name)) is not None}
    save_file(weights, file, {"format": "pt"})
    message = message.replace(": enc", r": (bert\.)?enc").replace(": emb", r": (bert\.)?emb")
    with pytest.raises(UserError, match=message):
        checkpoints.load_model(getattr(transformers, class_name), tmp_path)


def test_weights_of_another_size_are_listed_and_a_pooler_may_be_missing(tmp_path: Path):
    file = save_bert(tmp_path) / checkpoints.WEIGHTS
    weights = {name: weight for name, weight in load_file(file).items() if "pooler" not in name}
    save_file(weights, file, {"format": "pt"})
    assert checkpoints.load_model(transformers.AutoModel, tmp_path).missing == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:50]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"another size: bert\.embeddings\.word_embeddings\.weight; they would"):
        load(tmp_path, ["a", "b"])
