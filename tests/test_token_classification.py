"""Token classification: rows of words and of texts, windows, and what of tokens becomes entities."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import assume, given, strategies
from recipes import Trained
from samples import TEXT, UNICODE, Alone, conll, sentences, tiny_sizes, tiny_tokenizer, tokenizer_of
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline, set_seed

from ulmfit_style import load
from ulmfit_style.artefacts import predictions
from ulmfit_style.data import labelled
from ulmfit_style.tasks import entities
from ulmfit_style.tasks.base import IGNORED, Row
from ulmfit_style.tasks.token_classification import TokenClassification, likeliest_tags
from ulmfit_style.training.scoring import Scorer

TASK = TokenClassification(path="-")
CLASSES = ["no entity", "quality", "thing"]
LABEL2ID = TASK.head(CLASSES)["label2id"]
NAMES = list(LABEL2ID)


def of_words(words: str, tags: str) -> Row:
    return Row("a.conll", 7, {"text": words.split(), "label": tags.split()})


def of_text(text: str, *spans: Any) -> Row:
    return Row("a.jsonl", 7, {"text": text, "label": list(spans)})


def of(text: Any, label: Any) -> Row:
    return Row("a", 1, {"text": text, "label": label})


@given(text=UNICODE, data=strategies.data(), length=strategies.integers(12, 40), subwords=strategies.booleans())
def test_a_model_that_says_what_it_learnt_finds_each_entity_where_it_is_in_any_unicode(text, data, length, subwords):
    tokenizer, pieces = tokenizer_of("byte-level", [TEXT]), entities.words(text)
    borders = sorted(data.draw(strategies.sets(strategies.integers(0, len(pieces)), max_size=8)))
    spans = [
        [pieces[first][0], pieces[last - 1][1], data.draw(strategies.sampled_from(["quality", "thing"]))]
        for first, last in zip(borders[::2], borders[1::2], strict=False)
    ]
    task, row = TokenClassification(path="-", subwords="all" if subwords else "first"), of_text(text, *spans)
    learnt = task.encode(row, tokenizer, length, LABEL2ID)
    features = task.encode(row, tokenizer, length, None)
    assume(len(learnt) == len(features))  # a window within one word is not learnt
    outputs = [[(NAMES[max(label, 0)], 1.0) for label in feature["labels"]] for feature in learnt]
    found = task.merge(row, features, outputs)["entities"]
    assert [[entity["start"], entity["end"], entity["entity_group"]] for entity in found] == spans
    assert all(entity["word"] == text[entity["start"] : entity["end"]] for entity in found)


# Rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (of_words("Ada left", "B-p O"), ""),
        (
            of_text("Ada left", {"entity_group": "p", "word": "Ada", "start": 0, "end": 3}, [4, 8, "v"]),
            "",
        ),
        (of_words("Ada left", "B-p"), "has 2 words and 1 tags"),
        (of_text(None), "the text is empty"),
        (of(["a", ""], ["O", "O"]), "word 2 is empty"),
        (of_words("Ada left", "person O"), "word 1, 'Ada', has the tag 'person'; a tag is O, or a letter and a type"),
        (of_words("Ada left", "B-p 0"), "word 2, 'left', has the number 0 for a tag, which task.tags does not name"),
        (of("Ada", "B-p"), "the label is neither a list of tags nor a list of entities"),
        (of("Ada", ["B-p"]), "the label is a list of tags, but the text is not a list of words"),
        (of(["Ada"], [[0, 3, "p"]]), "the text is a list of words, but the label is a list of entities in characters"),
        (of_text("Ada left", [0, 3]), "[0, 3] is not an entity; write {start: 0, end: 5, label: person} or [0, 5,"),
        (of_text("Ada left", {"start": 0, "label": "p"}), "{'start': 0, 'label': 'p'} is not an entity"),
        (of_text("Ada left", [4, 9, "p"]), "the entity 'p' has no letters: it is 4 to 9 of the text, which has 8"),
        (of_text("Ada left", [2, 8, "p"], [0, 3, "q"]), "the entities 0 to 3 and 2 to 8 overlap; a character can be"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: Row, problem: str):
    found = TASK.row_problem(row) or ""
    assert found.startswith(problem) if problem else found == ""


def test_tags_may_be_numbers_that_the_task_names():
    task = TokenClassification(path="-", tags=["O", "B-p", "I-p"])
    for label in ([1, 2, 0], ["1", "2", "0"]):
        row = of(["Ada", "Lovelace", "left"], label)
        assert task.row_problem(row) is None
        assert task.target(row) == {"tags": ["B-p", "I-p", "O"]}
    assert "has the number 3 for a tag" in task.row_problem(of(["Ada"], [3]))


def test_words_and_texts_tell_the_same_entities():
    words = of_words("Ada Lovelace left Ottawa", "I-p I-p O S-l")
    text = of_text("Ada Lovelace left Ottawa", [18, 24, "l"], {"start": 0, "end": 12, "label": "p"})
    assert TASK.texts(words) == TASK.texts(text)
    assert TASK.labels_of(words) == TASK.labels_of(text) == ["l", "p"]
    assert TASK.target(words) == {"tags": ["B-p", "I-p", "O", "B-l"]}
    assert TASK.target(text)["entities"][0] == {"entity_group": "p", "word": "Ada Lovelace", "start": 0, "end": 12}
    assert TASK.labels_of(of_words("he left", "O O")) == ["no entity"]


def test_a_file_without_entities_is_refused_and_borders_that_cannot_be_learnt_are_counted():
    assert TASK.dataset_problem([of_words("a b", "O O"), of_text("a b")]) == (
        "no row has an entity; is task.label the column of the tags?"
    )
    spans = [of_text("서울에서 왔다", [0, 2, "l"]), of_text("Ada left", [0, 4, "p"])]
    blank, cut = TASK.remarks(spans)
    assert blank == "1 of 2 entities begin or end with a blank, which is left out"
    assert cut.startswith("1 of 2 entities begin or end with a part of a word; they are learnt as whole words, and")
    assert "learnt by their tokens" in TokenClassification(path="-", subwords="all").remarks(spans)[1]


def test_a_file_is_split_with_a_share_of_each_type_and_sampled_every_type_first(tmp_path: Path):
    rows = [*sentences(80), *(["number", str(number)] for number in range(40))]
    path = str(conll(tmp_path / "a.conll", rows))
    data = labelled.load(TokenClassification(path=path, folds=0))
    assert data.classes == CLASSES
    assert sum(TASK.labels_of(row) == ["no entity"] for row in data.test) == 8
    few = labelled.load(TokenClassification(path=path, train_samples=2)).train
    assert {label for row in few for label in TASK.labels_of(row)} == set(CLASSES)


# Tokens


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
        said.append(likeliest_tags(list(label2id), probabilities))
    return said


@pytest.mark.parametrize("length", [200, 24])
@pytest.mark.parametrize("aggregation", ["first", "simple"])
def test_entities_are_told_by_their_characters_whatever_the_tokenizer(
    family: PreTrainedTokenizerFast, aggregation: str, length: int
):
    task = TokenClassification(path="-", aggregation=aggregation)
    row = of_text(TEXT, *SPANS)
    features = task.encode(row, family, length, None)
    assert features[0]["long"] == (length == 24)
    answer = task.merge(row, features, oracle(row, family, features, length))
    assert [[entity["start"], entity["end"], entity["entity_group"]] for entity in answer["entities"]] == SPANS
    assert [entity["word"] for entity in answer["entities"]] == [TEXT[start:end] for start, end, _ in SPANS]
    assert task.score([answer], [task.target(row)])["micro_f1"] == 1


@pytest.mark.parametrize("subwords", ["first", "all"])
def test_every_word_is_learnt_once_however_many_windows_there_are(family: PreTrainedTokenizerFast, subwords: str):
    task = TokenClassification(path="-", subwords=subwords)
    words = TEXT.split()
    tags = ["B-person", *["O"] * (len(words) - 2), "B-place"]
    label2id, learnt = task.head(PLACES)["label2id"], []
    for length in (200, 24, 10):
        features = task.encode(of(words, tags), family, length, label2id)
        learnt.append([label for feature in features for label in feature["labels"] if label != IGNORED])
        assert (len(features) > 1) == (length < 200)
        assert all(feature.keys() <= {*family.model_input_names, "labels", "long"} for feature in features)
    assert learnt[0] == learnt[1] == learnt[2]
    if subwords == "first":
        assert learnt[0] == [label2id[tag] for tag in tags]
    else:
        assert len(learnt[0]) > len(tags)
        assert learnt[0].count(label2id["B-person"]) == learnt[0].count(label2id["B-place"]) == 1


@pytest.mark.parametrize(("aggregation", "expected"), [("first", []), ("simple", [("thing", 0.85, 1)])])
def test_tokens_of_a_word_that_disagree(aggregation: str, expected: list[tuple]):
    task = TokenClassification(path="-", aggregation=aggregation)
    row = task.row("xyz")
    (feature,) = task.encode(row, tiny_tokenizer(), 32, None)
    feature["offsets"], feature["own"] = [(0, 0), (0, 1), (1, 2), (0, 0)], (1, 3)
    probabilities = np.array([[0.2] * 5, [0.6, 0.15, 0, 0.25, 0], [0.05, 0.1, 0, 0.85, 0], [0.2] * 5])
    entities = task.merge(row, [feature], [likeliest_tags(NAMES, probabilities)])["entities"]
    assert [(entity["entity_group"], entity["score"], entity["start"]) for entity in entities] == expected


@pytest.fixture(scope="module")
def network(tokenizer: PreTrainedTokenizerFast) -> BertForTokenClassification:
    """A tiny untrained model that tells many tags, whatever the text."""
    set_seed(3)
    config = BertConfig(**tiny_sizes(tokenizer), **TASK.head(CLASSES), initializer_range=0.6)
    return BertForTokenClassification(config).eval()


@pytest.mark.parametrize("aggregation", ["first", "simple"])
def test_the_transformers_pipeline_tells_the_same_entities(network, tokenizer, aggregation: str):
    task = TokenClassification(path="-", aggregation=aggregation)
    texts = [" ".join(words) + "." for words in sentences(30)] + ["very-wonderful,  (plot) numb3r", "dreadful"]
    theirs = pipeline(
        "token-classification", model=network, tokenizer=tokenizer, aggregation_strategy=aggregation, device="cpu"
    )
    ours = list(Scorer(network, tokenizer, task, 128).answers(map(task.row, texts)))
    assert sum(len(answer["entities"]) for answer in ours) > 40  # or the test would say little
    for text, answer in zip(texts, ours, strict=True):
        for mine, other in zip(answer["entities"], theirs(text), strict=True):
            assert mine["word"] == text[mine["start"] : mine["end"]]  # theirs is put together from tokens
            assert mine == {**other, "word": mine["word"], "score": pytest.approx(other["score"], abs=1e-5)}


def test_windows_tell_what_the_whole_text_tells_where_they_see_enough(network, tokenizer: PreTrainedTokenizerFast):
    words = [word for words in sentences(9) for word in words]
    row = Row("a", 1, {"text": words})
    torch.manual_seed(0)
    tags = torch.rand(len(tokenizer), len(NAMES)).softmax(-1)
    model = Alone(network.config, lambda ids: SimpleNamespace(logits=tags[ids].log()))
    whole, *others = (next(Scorer(model, tokenizer, TASK, length).answers([row])) for length in (1000, 40, 13, 5))
    assert len(whole["tags"]) == len(words)
    assert len(set(whole["tags"])) > 3
    assert all(other == whole for other in others)


def test_words_that_a_tokenizer_throws_away_have_a_tag_too(network, tokenizer: PreTrainedTokenizerFast):
    nothing = "\N{ZERO WIDTH SPACE}"
    words = [nothing, "very", nothing, "wonderful", nothing]
    row = of(words, ["O", "B-quality", "I-quality", "I-quality", "O"])
    features = TASK.encode(row, tokenizer, 32, None)
    probabilities = np.eye(5)[[0, 1, 2, 0]]  # [CLS] very wonderful [SEP]
    assert TASK.merge(row, features, [likeliest_tags(NAMES, probabilities)])["tags"] == row.fields["label"]
    assert TASK.merge(of(words[:1], None), [], []) == {"tags": ["O"], "entities": []}
    answers = Scorer(network, tokenizer, TASK, 32).answers(map(TASK.row, ["", nothing]))
    assert list(answers) == [{"entities": []}] * 2


def test_predictions_of_texts_and_of_words_are_kept_side_by_side_in_any_order(tmp_path: Path):
    rows = [of_text("a b", [0, 1, "p"]), of_words("a b", "B-p O")]
    found = [{**TASK.target(row), "entities": []} for row in rows]
    predictions.write(tmp_path, predictions.of("test", TASK, rows, found))
    text, words = predictions.read(tmp_path, "test")
    assert words["tags"] == ["B-p", "O"]
    assert text["target"]["entities"][0]["entity_group"] == "p"
    assert TASK.score([text, words], [text["target"], words["target"]])["recall"] == 1 / 2


def test_python_gives_the_entities_of_texts_and_of_words(trained: Callable[[str], Trained]):
    model = load(trained("entities").directory, device="cpu")
    text = "The plot number 7 is very   wonderful"
    assert [(entity["entity_group"], entity["word"], entity["start"], entity["end"]) for entity in model(text)] == [
        ("thing", "plot", 4, 8),
        ("quality", "very   wonderful", 21, 37),
    ]
    frame = pandas.DataFrame({"tokens": [text.split()] * 2})
    assert [[entity["word"] for entity in answer] for answer in model(frame)] == [["plot", "very wonderful"]] * 2
