"""Token classification: rows of words and of texts, windows, and what of tokens becomes entities."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch
from samples import FAMILIES, conll, jsonl, sentences, tag, tiny_tokenizer, tokenizer_of
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline, set_seed

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.directory import METRICS
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled
from ulmfit_style.errors import UserError
from ulmfit_style.stages import push
from ulmfit_style.tasks.base import IGNORED, Row
from ulmfit_style.tasks.token_classification import TokenClassification
from ulmfit_style.training.batching import collate
from ulmfit_style.training.scoring import Scorer

TASK = TokenClassification(path="-")
CLASSES = ["no entity", "quality", "thing"]
LABEL2ID = TASK.head(CLASSES)["label2id"]
NAMES = list(LABEL2ID)


def of_words(words: str, tags: str) -> Row:
    return Row("a.conll", 7, {"text": words.split(), "label": tags.split()})


def of_text(text: str, *spans: Any) -> Row:
    return Row("a.jsonl", 7, {"text": text, "label": list(spans)})


# Rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (of_words("Ada left", "B-p O"), None),
        (of_text("Ada left", [0, 3, "p"], {"start": 4, "end": 8, "label": "v"}), None),
        (of_text("Ada left"), None),
        (of_text("Ada left", {"entity_group": "p", "score": 0.9, "word": "Ada", "start": 0, "end": 3}), None),
        (of_words("Ada left", "B-p"), "has 2 words and 1 tags"),
        (of_words("", ""), "the text is empty"),
        (of_text("  "), "the text is empty"),
        (of_text(None), "the text is empty"),
        (of_text(7), "the text is neither text nor words"),
        (Row("a", 1, {"text": ["a", ""], "label": ["O", "O"]}), "word 2 is empty"),
        (Row("a", 1, {"text": ["a", 7], "label": ["O", "O"]}), "word 2 is no text"),
        (
            of_words("Ada left", "person O"),
            "word 1, 'Ada', has the tag 'person'; a tag is O, or a letter and a type, as in",
        ),
        (of_words("Ada left", "B-p 0"), "word 2, 'left', has the number 0 for a tag, which task.tags does not name"),
        (of_words("A B C", "B-p E-p U-p"), "the tags are of two schemes, IOBES and BILOU"),
        (Row("a", 1, {"text": "Ada", "label": "B-p"}), "the label is neither a list of tags nor one of entities"),
        (
            Row("a", 1, {"text": "Ada", "label": ["B-p"]}),
            "the text is not divided into words, and the label is a list of",
        ),
        (
            Row("a", 1, {"text": ["Ada"], "label": [[0, 3, "p"]]}),
            "the text is words, and its entities are in characters",
        ),
        (of_text("Ada left", [0, 3]), "[0, 3] is no entity; write {start: 0, end: 5, label: person} or [0, 5, person]"),
        (of_text("Ada left", {"start": 0, "end": 3}), "{'start': 0, 'end': 3} is no entity"),
        (of_text("Ada left", {"start": 0, "label": "p"}), "{'start': 0, 'label': 'p'} is no entity"),
        (of_text("Ada left", [0, "3", "p"]), "[0, '3', 'p'] is no entity"),
        (of_text("Ada left", [4, 9, "p"]), "the entity 4 to 9 ('p') is not in the text, which has 8 characters"),
        (of_text("Ada left", [3, 3, "p"]), "the entity 3 to 3 ('p') is not in the text"),
        (of_text("Ada left", [3, 4, "p"]), "the entity 3 to 4 ('p') holds nothing but blanks"),
        (
            of_text("Ada left", [2, 8, "p"], [0, 3, "q"]),
            "the entities 0 to 3 and 2 to 8 overlap; a character can be in one",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: Row, problem: str | None):
    found = TASK.row_problem(row)
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)


def test_tags_may_be_numbers_that_the_task_names():
    task = TokenClassification(path="-", tags=["O", "B-p", "I-p"])
    for label in ([1, 2, 0], ["1", "2", "0"]):
        row = Row("a", 1, {"text": ["Ada", "Lovelace", "left"], "label": label})
        assert task.row_problem(row) is None
        assert task.target(row) == {"tags": ["B-p", "I-p", "O"]}
    assert "has the number 3 for a tag" in task.row_problem(Row("a", 1, {"text": ["Ada"], "label": [3]}))


def test_words_and_texts_tell_the_same_entities():
    words = of_words("Ada Lovelace left Ottawa", "I-p I-p O S-l".replace("S", "B"))
    text = of_text("Ada Lovelace left Ottawa", [18, 24, "l"], {"start": 0, "end": 12, "type": "p"})
    assert TASK.texts(words) == TASK.texts(text)
    assert TASK.labels_of(words) == TASK.labels_of(text) == ["l", "p"]
    assert TASK.target(words) == {"tags": ["B-p", "I-p", "O", "B-l"]}
    assert TASK.target(text)["entities"][0] == {"entity_group": "p", "word": "Ada Lovelace", "start": 0, "end": 12}
    assert TASK.labels_of(of_words("he left", "O O")) == ["no entity"]


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [
        ([of_words("a b", "O O")], "no row has an entity; is task.label the column of the tags?"),
        ([of_text("a b")], "no row has an entity"),
        (
            [of_words("a b", "B-p E-p"), of_words("a b", "B-p L-p")],
            "the tags are of two schemes: those of some rows are",
        ),
        (
            [of_words("a b", "B-p E-p"), of_words("a b", "B-p I-p")],
            "the tags are of two schemes: 1 of 2 entities are not",
        ),
        ([of_words("a b", "B-p I-p"), of_words("a b", "O I-p")], None),
    ],
)
def test_tags_that_cannot_be_learnt_from_are_doubted(rows: list[Row], doubt: str | None):
    assert (TASK.dataset_problem(rows) or "").startswith(doubt or "")
    assert (TASK.dataset_problem(rows) is None) == (doubt is None)


def test_what_is_mended_is_counted():
    rows = [of_words("a b", "B-p I-p")] * 20
    assert TASK.remarks([*rows, of_words("a b", "O I-p")]) == [
        "the tags are IOB2, but 1 of 21 entities begin with I-, and are taken as if with B-"
    ]
    whole = [of_words("a b", "B-p E-p")] * 20
    assert TASK.remarks([*whole, of_words("a b", "O B-p")]) == [
        "the tags are IOBES, but 1 of 21 entities are not whole, and are mended"
    ]
    assert TASK.remarks(rows) == TASK.remarks(whole) == TASK.remarks([of_words("a b", "I-p I-p")]) == []
    spans = [of_text("서울에서 왔다", [0, 2, "l"]), of_text("Ada left", [0, 4, "p"])]
    blank, cut = TASK.remarks(spans)
    assert blank == "1 of 2 entities begin or end with a blank, which is left out"
    assert cut.startswith(
        "1 of 2 entities begin or end within a word; they are learnt as whole words, and scored as they"
    )
    assert "learnt by their tokens" in TokenClassification(path="-", subwords="all").remarks(spans)[1]


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., labelled.Labelled]:
    """Write sentences as a CoNLL file, and load the task that they make."""

    def make(rows: list[list[str]] | None = None, **options: Any) -> labelled.Labelled:
        labelled.load.cache_clear()
        path = conll(tmp_path / "a.conll", sentences(120) if rows is None else rows)
        return labelled.load(TokenClassification(path=str(path), **options))

    return make


def test_a_file_is_split_with_a_share_of_each_type_and_sampled_every_type_first(loaded):
    plain = [["number", str(number)] for number in range(40)]
    rows = loaded([*sentences(80), *plain])
    assert rows.classes == CLASSES
    assert sum(TASK.labels_of(row) == ["no entity"] for row in rows.test) == 8
    few = loaded([*sentences(80), *plain], train_samples=2)
    assert {label for row in few.train for label in TASK.labels_of(row)} == set(CLASSES)


def test_shots_are_sentences_of_each_type_and_sentences_without_any(loaded):
    plain = [["number", str(number)] for number in range(40)]
    rows = loaded([*sentences(80), *plain], shots=5)
    counts = {label: sum(label in TASK.labels_of(row) for row in rows.train) for label in CLASSES}
    assert counts["no entity"] == 5
    assert min(counts.values()) == 5


def test_a_type_that_training_lacks_is_refused_with_its_line(tmp_path: Path):
    train, test = conll(tmp_path / "a.conll", sentences(30)), tmp_path / "b.conll"
    test.write_text("number\tO\n\nAda\tB-person\n\nBo\tB-person\n")
    task = TokenClassification(path={"train": str(train), "test": str(test)})
    with pytest.raises(UserError, match=r"b\.conll:3: the label 'person' is in no training row \(.*: 2\)"):
        labelled.load(task)


def test_all_that_is_wrong_is_told_with_its_line_and_what_is_mended_with_its_file(tmp_path: Path, capsys):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-p\n\nleft\tperson\n\nAda\tB-p\nnow\t\n")
    with pytest.raises(UserError) as caught:
        labelled.load(TokenClassification(path=str(path)))
    assert "\n  - a.conll:3: word 1, 'left', has the tag 'person'; " in str(caught.value)
    assert "\n  - a.conll:5: word 2, 'now', has the tag ''; " in str(caught.value)

    path.write_text("".join(f"Ada\tB-p\nB{number}\tI-p\n\nleft{number}\tO\nBo\tI-p\n\n" for number in range(20)))
    labelled.load(TokenClassification(path=str(path)))
    told = f"task.path={path}: the tags are IOB2, but 20 of 40 entities begin with I-, and are taken as if with B-\n"
    assert told in capsys.readouterr().out


def test_a_text_file_is_told_what_such_files_are_called(tmp_path: Path):
    (tmp_path / "train.txt").write_text("Ada B-p\n")
    with pytest.raises(UserError, match=r"\(columns: text\); a file with a word and its tag a line is called \.conll"):
        labelled.load(TokenClassification(path=str(tmp_path / "train.txt")))


def test_another_column_than_the_first_may_hold_the_words(tmp_path: Path):
    path = tmp_path / "a.conll"
    lines = [f"1 Ada{number} B-p O\n2 left O O\n" for number in range(40)]
    path.write_text("\n".join(lines))
    rows = labelled.load(TokenClassification(path=str(path), text="column_2", label="column_3"))
    assert rows.classes == ["no entity", "p"]
    assert rows.train[0].fields["text"][1] == "left"


# Tokens


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A tokenizer of each family, which gives most words several tokens."""
    return tokenizer_of(request.param, [TEXT])


TEXT = "Zoë (from St. Gallen)  visited New-York's 北京 office;\n서울에서 😀 e\u0301t U.S."
SPANS = [
    [0, 3, "person"],
    [10, 20, "place"],  # St. Gallen
    [31, 39, "place"],  # New-York
    [42, 44, "place"],
    [53, 57, "place"],
    [60, 63, "person"],
    [64, 68, "place"],
]
PLACES = ["no entity", "person", "place"]


def oracle(row: Row, tokenizer: PreTrainedTokenizerFast, features: list[dict], length: int) -> list[Any]:
    """Return what a model says that has learnt the tags of all tokens, and errs where a token is another window's."""
    chance = np.random.default_rng(0)
    label2id = TASK.head(PLACES)["label2id"]
    taught = TokenClassification(path="-", subwords="all").encode(row, tokenizer, length, label2id)
    said = []
    for feature, right in zip(features, taught, strict=True):
        assert feature["input_ids"] == right["input_ids"]
        probabilities = chance.random((len(right["labels"]), len(label2id)))
        for place, label in enumerate(right["labels"]):
            if label != IGNORED:
                probabilities[place] = np.eye(len(label2id))[label] * 0.9 + 0.02
        said.append((list(label2id), probabilities))
    return said


@pytest.mark.parametrize("length", [200, 24])
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_told_by_their_characters_whatever_the_tokenizer(
    family: PreTrainedTokenizerFast, aggregation: str, length: int
):
    task = TokenClassification(path="-", aggregation=aggregation)
    row = of_text(TEXT, *SPANS)
    features = task.encode(row, family, length, None)
    assert features[0]["long"] == (length == 24)
    answer = task.merge(row, features, oracle(row, family, features, length))
    if aggregation != "none":
        found = [[entity["start"], entity["end"], entity["entity_group"]] for entity in answer["entities"]]
        assert found == SPANS
        assert [entity["word"] for entity in answer["entities"]] == [TEXT[start:end] for start, end, _ in SPANS]
    assert task.score([answer], [task.target(row)])["micro_f1"] == 1


@pytest.mark.parametrize("subwords", ["first", "all"])
def test_every_word_is_learnt_once_however_many_windows_there_are(family: PreTrainedTokenizerFast, subwords: str):
    task = TokenClassification(path="-", subwords=subwords)
    words = TEXT.split()
    tags = ["B-person", *["O"] * (len(words) - 2), "B-place"]
    row = Row("a", 1, {"text": words, "label": tags})
    label2id = task.head(PLACES)["label2id"]
    for length in (200, 24, 10):
        features = task.encode(row, family, length, label2id)
        learnt = [label for feature in features for label in feature["labels"] if label != IGNORED]
        if subwords == "first":
            assert learnt == [label2id[tag] for tag in tags]
        else:
            plain = tokenizer_tokens(family, " ".join(words))
            assert len(learnt) == plain
            assert learnt.count(label2id["B-person"]) == learnt.count(label2id["B-place"]) == 1
        assert (len(features) > 1) == (length < 200)
        assert all(
            set(feature) == {*feature.keys() & set(family.model_input_names), "labels", "long"} for feature in features
        )


def tokenizer_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """Return how many tokens stand for something else than a blank."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces = zip(encoded.tokens(), encoded["offset_mapping"], strict=True)
    return sum(bool(text[start:end].strip()) and token != "▁" for token, (start, end) in pieces)


def test_labels_are_padded_on_the_side_of_the_tokens(monkeypatch: pytest.MonkeyPatch):
    tokenizer = tiny_tokenizer()
    features = [{"input_ids": [5] * size, "attention_mask": [1] * size, "labels": [1] * size} for size in (2, 3)]
    assert collate(features, tokenizer)["labels"].tolist() == [[1, 1, IGNORED], [1, 1, 1]]
    monkeypatch.setattr(tokenizer, "padding_side", "left")
    assert collate(features, tokenizer)["labels"].tolist() == [[IGNORED, 1, 1], [1, 1, 1]]
    assert collate(features, tokenizer)["input_ids"][0, 0] == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("first", []),
        ("average", [("thing", 0.55, 0, 2)]),
        ("max", [("quality", 0.75, 0, 2)]),
        ("simple", [("thing", 0.85, 1, 2)]),
    ],
)
def test_tokens_of_a_word_that_disagree(aggregation: str, expected: list[tuple]):
    task = TokenClassification(path="-", aggregation=aggregation)
    row = task.row("xyz")
    (feature,) = task.encode(row, tiny_tokenizer(), 32, None)
    feature["offsets"], feature["own"] = [(0, 0), (0, 1), (1, 2), (0, 0)], (1, 3)
    if aggregation == "max":
        tokens = [[0.25, 0.75, 0, 0, 0], [0.4, 0, 0, 0.6, 0]]
    else:
        tokens = [[0.6, 0.15, 0, 0.25, 0], [0.05, 0.1, 0, 0.85, 0]]
    probabilities = np.array([[0.2] * 5, *tokens, [0.2] * 5])
    found = task.merge(row, [feature], [(NAMES, probabilities)])["entities"]
    told = [(entity["entity_group"], entity["score"], entity["start"]) for entity in found]
    assert told == [(name, score, start) for name, score, start, _ in expected]


@pytest.fixture(scope="module")
def network() -> BertForTokenClassification:
    """A tiny untrained model that tells many tags, whatever the text."""
    from samples import tiny_sizes

    set_seed(3)
    config = BertConfig(**tiny_sizes(tiny_tokenizer()), **TASK.head(CLASSES), initializer_range=0.6)
    return BertForTokenClassification(config).eval()


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_the_transformers_pipeline_tells_the_same_entities(network: BertForTokenClassification, aggregation: str):
    tokenizer = tiny_tokenizer()
    task = TokenClassification(path="-", aggregation=aggregation)
    texts = [" ".join(words) + "." for words in sentences(30)] + ["very-wonderful,  (plot) numb3r", "dreadful"]
    theirs = pipeline(
        "token-classification", model=network, tokenizer=tokenizer, aggregation_strategy=aggregation, device="cpu"
    )
    ours = list(Scorer(network, tokenizer, task, 128).answers(map(task.row, texts)))
    assert sum(len(answer["entities"]) for answer in ours) > 40  # or the test would say little
    for text, answer in zip(texts, ours, strict=True):
        found, expected = task.returned(answer), theirs(text)
        for own, other in zip(found, expected, strict=True):
            assert list(own) == list(other)
            assert own["word"] == text[own["start"] : own["end"]]  # theirs is put together from tokens
            for name in other.keys() - {"word", "score"}:
                assert own[name] == other[name]
            assert own["score"] == pytest.approx(other["score"], abs=1e-5)


def test_windows_tell_what_the_whole_text_tells_where_they_see_enough(network: BertForTokenClassification):
    """A model that sees each token alone is the same in any window."""
    tokenizer, words = tiny_tokenizer(), [word for words in sentences(9) for word in words]
    row = Row("a", 1, {"text": words})
    torch.manual_seed(0)
    tags = torch.rand(len(tokenizer), len(NAMES)).softmax(-1)

    class Alone:
        config, device = network.config, network.device

        def eval(self) -> None:
            return

        def __call__(self, input_ids: torch.Tensor, **others: torch.Tensor) -> Any:
            return type("Output", (), {"logits": tags[input_ids].log()})

    whole, *others = (next(Scorer(Alone(), tokenizer, TASK, length).answers([row])) for length in (1000, 40, 13, 5))
    assert len(whole["tags"]) == len(words)
    assert len(set(whole["tags"])) > 3
    assert all(other == whole for other in others)


def test_the_loss_is_the_cross_entropy_of_the_labelled_tokens(network: BertForTokenClassification):
    tokenizer = tiny_tokenizer()
    rows = [Row("a", n, {"text": words, "label": tag(words)}) for n, words in enumerate(sentences(3))]
    encoded = [feature for row in rows for feature in TASK.encode(row, tokenizer, 64, LABEL2ID)]
    weights = [1.0, 2.0, 0.5]
    weighted = [{**feature, "weight": weight} for feature, weight in zip(encoded, weights, strict=True)]
    total = tokens = 0.0
    for feature, weight in zip(encoded, weights, strict=True):
        logits = network(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        places = [place for place, label in enumerate(feature["labels"]) if label != IGNORED]
        right = torch.tensor([feature["labels"][place] for place in places])
        total += weight * cross_entropy(logits[places], right, reduction="sum").item()
        tokens += weight * len(places)
    batch = collate(weighted, tokenizer)
    assert TASK.loss(network, batch).item() == pytest.approx(total, rel=1e-5)
    assert TASK.count(batch).item() == tokens
    assert TASK.count(collate(encoded, tokenizer)).item() == sum(len(row.fields["text"]) for row in rows)


def test_words_that_a_tokenizer_throws_away_have_a_tag_too(network: BertForTokenClassification):
    tokenizer = tiny_tokenizer()
    words = ["\N{ZERO WIDTH SPACE}", "very", "\N{ZERO WIDTH SPACE}", "wonderful", "\N{ZERO WIDTH SPACE}"]
    row = Row("a", 1, {"text": words, "label": ["O", "B-quality", "I-quality", "I-quality", "O"]})
    features = TASK.encode(row, tokenizer, 32, None)
    probabilities = np.eye(5)[[0, 1, 2, 0]]  # [CLS] very wonderful [SEP]
    answer = TASK.merge(row, features, [(NAMES, probabilities)])
    assert answer["tags"] == row.fields["label"]
    assert TASK.merge(Row("a", 1, {"text": words[:1]}), [], []) == {"tags": ["O"], "entities": []}
    assert (
        list(Scorer(network, tokenizer, TASK, 32).answers(map(TASK.row, ["", "\N{ZERO WIDTH SPACE}"])))
        == [{"entities": []}] * 2
    )


def test_a_tokenizer_that_does_not_tell_where_its_tokens_stand_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="Slow does not tell where its tokens stand in a text; take another model"):
        TASK.encode(TASK.row("a"), Slow(), 32, None)


def test_two_texts_are_refused():
    with pytest.raises(UserError, match="this model answers one text; 2 texts were given"):
        TASK.row("a", "b")


# The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with a recipe that `finetune` has run, over training words and test texts with entities."""
    path = tmp_path_factory.mktemp("tagged")
    conll(path / "train.conll", sentences(120))
    texts = []
    for words in sentences(30, seed=1):
        row = Row("a", 1, {"text": words, "label": tag(words)})
        entities = [{"start": one.start, "end": one.end, "label": one.type} for one in TASK._entities(row)]
        texts.append({"id": len(texts), "text": " ".join(words), "entities": entities})
    jsonl(path / "test.jsonl", texts)
    assert main(["finetune", "evaluate", *recipe(path, checkpoint)]) == 0
    return path


def recipe(path: Path, checkpoint: Path) -> list[str]:
    return [
        "task=token_classification",
        f"task.path={{train: {path / 'train.conll'}, test: {path / 'test.jsonl'}}}",
        f"model.checkpoint={checkpoint}",
        "model.sha256=null",
        f"runs={path / 'runs'}",
        "adapt=none",
        "finetune.epochs=12",
        "finetune.learning_rate=1e-2",
        "finetune.max_length=20",
    ]


def test_entities_are_learnt_scored_and_kept_with_their_rows(folder: Path, checkpoint: Path, capsys):
    assert main(["evaluate", *recipe(folder, checkpoint)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((folder / "runs/default/finetune" / METRICS).read_text())
    assert found["train"]["classes"] == CLASSES
    assert found["test"]["scores"]["micro_f1"] > 0.9
    assert found["validation"]["scores"]["strict_f1"] > 0.9
    assert [entry["class"] for entry in found["test"]["report"]] == ["quality", "thing"]
    assert "│ quality │" in printed
    for split in ("validation", "test"):
        rows = predictions.read(folder / "runs/default/finetune", split)
        assert TASK.score(rows, [row["target"] for row in rows]) == found[split]["scores"]
    table = pyarrow.parquet.read_table(folder / "runs/default/finetune" / predictions.FILE).to_pylist()
    words, text = (next(row for row in table if row["file"] == name) for name in ("train.conll", "test.jsonl"))
    assert words["tags"] is not None
    assert text["tags"] is None
    saved = json.loads((folder / "runs/default/finetune/config.json").read_text())
    assert saved["architectures"] == ["BertForTokenClassification"]
    assert list(saved["id2label"].values()) == NAMES


def test_predictions_of_texts_and_of_words_are_kept_side_by_side_in_any_order(tmp_path: Path):
    rows = [of_text("a b", [0, 1, "p"]), of_words("a b", "B-p O")]
    found = [{**TASK.target(row), "entities": []} for row in rows]
    predictions.write(tmp_path, predictions.of("test", TASK, rows, found))
    text, words = predictions.read(tmp_path, "test")
    assert words["tags"] == ["B-p", "O"]
    assert text["target"]["entities"][0]["entity_group"] == "p"
    assert TASK.score([text, words], [text["target"], words["target"]])["recall"] == 1 / 2


def test_a_model_that_reads_from_left_to_right_learns_them_too(folder: Path, causal_checkpoint: Path):
    overrides = [*recipe(folder, causal_checkpoint), "name=causal", "finetune.epochs=8"]
    assert main(["finetune", *overrides]) == 0
    found = json.loads((folder / "runs/causal/finetune" / METRICS).read_text())
    assert found["test"]["scores"]["micro_f1"] > 0.5
    assert load(folder / "runs/causal/finetune")("the plot number 7 is moving") != []


def test_concat_pooling_is_refused(folder: Path, checkpoint: Path, capsys):
    assert main(["finetune", *recipe(folder, checkpoint), "finetune.pooling=concat"]) == 2
    assert "finetune.pooling=concat: TokenClassification does not score whole texts" in capsys.readouterr().err


def test_long_sentences_are_read_in_windows_and_it_is_said(folder: Path, checkpoint: Path, capsys):
    assert main(["finetune", *recipe(folder, checkpoint), "name=short", "finetune.max_steps=1"]) == 0
    printed = capsys.readouterr().out
    assert "are longer than 20 tokens, and are read in windows that overlap (finetune.max_length)" in printed
    assert "rows are longer than 20 tokens, and were read in windows that overlap" in printed


def test_python_tells_entities_as_the_pipeline_of_transformers_does(folder: Path):
    model = load(folder / "runs/default/finetune", device="cpu")
    text = "The plot number 7 is very   wonderful"
    found = model(text)
    assert [list(entity) for entity in found] == [["entity_group", "score", "word", "start", "end"]] * 2
    told = [(entity["entity_group"], entity["word"], entity["start"], entity["end"]) for entity in found]
    assert told == [("thing", "plot", 4, 8), ("quality", "very   wonderful", 21, 37)]
    assert [len(entities) for entities in model([text, ""])] == [2, 0]
    frame = pandas.DataFrame({"tokens": [text.split()] * 2})
    assert [[entity["word"] for entity in entities] for entities in model(frame)] == [["plot", "very wonderful"]] * 2
    alone = load(folder / "runs/default/finetune", task={"aggregation": "none"})(text)
    assert {"entity", "index"} <= set(alone[0])


def test_a_file_of_words_and_one_of_texts_are_answered(folder: Path, capsys, tmp_path: Path):
    words = [["the", "plot", "number", "7", "is", "moving"], ["a", "story", "number", "3", "is", "very", "tedious"]]
    (tmp_path / "new.conll").write_text("\n\n".join("\n".join(sentence) for sentence in words))
    model = f"predict.model={folder / 'runs/default/finetune'}"
    assert main(["predict", model, f"predict.input={tmp_path / 'new.conll'}"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["tokens"] for row in found] == words
    assert [row["tags"] for row in found] == list(map(tag, words))

    assert main(["predict", model, f"predict.input={folder / 'train.conll'}"]) == 0
    printed = capsys.readouterr()
    assert "the input's own column 'tags' is 'input_tags' in the output" in printed.err
    rows = [json.loads(line) for line in printed.out.splitlines()]
    agree = [row["tags"] == row["input_tags"] for row in rows]
    assert sum(agree) > 0.9 * len(agree)

    long = {"text": "the plot number 7 is wonderful " * 12}
    assert main(["predict", model, f"predict.input={jsonl(tmp_path / 'long.jsonl', [long])}"]) == 0
    printed = capsys.readouterr()
    assert (
        "1 rows are longer than the 20 tokens that the model was trained on; read in windows that overlap"
        in printed.err
    )
    assert max(entity["end"] for entity in json.loads(printed.out)["entities"]) > 300


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "predict.task.aggregation=mean",
            "predict.task.aggregation=mean: should be 'none', 'simple', 'first', 'average'",
        ),
        ("predict.task.agregation=max", "is no option that says how the model answers; did you mean 'aggregation'?"),
        (
            "predict.task.subwords=all",
            "predict.task.subwords: is no option that says how the model answers (there are: a",
        ),
    ],
)
def test_another_way_to_answer_is_checked(folder: Path, capsys, option: str, message: str):
    model = f"predict.model={folder / 'runs/default/finetune'}"
    assert main(["predict", model, "predict.input=the plot", option]) == 2
    assert message in capsys.readouterr().err


def test_the_card_tells_how_to_ask_the_model_and_what_becomes_of_long_texts(folder: Path, tmp_path: Path):
    push._export(tmp_path, compose(), (folder / "runs/default/finetune").resolve(), "me/entities", None)
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert 'pipeline("token-classification", model="me/entities", aggregation_strategy="first")' in card
    assert "- Texts longer than 20 tokens were read in windows that overlap." in card


def test_a_model_is_evaluated_on_another_file_if_it_knows_its_types(folder: Path, checkpoint: Path, capsys, tmp_path):
    other = conll(tmp_path / "other.conll", sentences(20, seed=5))
    model = f"evaluate.model={folder / 'runs/default/finetune'}"
    assert main(["evaluate", *recipe(folder, checkpoint), model, f"evaluate.path={other}"]) == 0
    other.write_text("Ada\tB-person\n")
    labelled.load_whole.cache_clear()
    assert main(["evaluate", *recipe(folder, checkpoint), model, f"evaluate.path={other}"]) == 2
    message = (
        "other.conll:1: has the label 'person', which the model does not know (it knows: no entity, quality, thing)"
    )
    assert message in capsys.readouterr().err
