"""What is read of a long document, compared: `python bench/long_documents.py TEXTS FOLDER [SET ...]`.

TEXTS is a folder of books as text, `<author>_<title>.txt`, where one of each of AUTHORS has "short-fiction" in its
title: Standard Ebooks has these collections, all of them in the public domain. Two sets of documents of 800 words are
made of them in FOLDER, always the same, training documents from the first half of each book and test documents from the
second:

mixed: four passages of 200 words, three by O. Henry, and one at the second, third or fourth place by one of six others,
    which is the label. The first lines say nothing of it.
single: one passage of 800 words by one of twelve authors, which is the label. The first lines are by that author too.

What a frozen MiniLM reads of each document is computed once for each arm by what `finetune` uses, and kept in FOLDER.
The head is solved from it as by `finetune=frozen`, for every sample of labels that `task.sample_seed` draws. The
windows of a document answer one by one and their answers are averaged, or they become one vector under one head: by
their maximum, as `task.long_documents=windows` has it, or in other ways, which are no options of the program. Prints
tables in Markdown.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer

from ulmfit_style.cli.compose import compose
from ulmfit_style.resolved import Resolved
from ulmfit_style.stages import finetune
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.base import inputs_of
from ulmfit_style.tasks.text_classification import logistic_regression
from ulmfit_style.training import solving
from ulmfit_style.training.solving import Floats, HeadInputs

SHARED = "o-henry"
"""The author of three quarters of each mixed document."""

OTHERS = (
    "anton-chekhov",
    "f-scott-fitzgerald",
    "h-p-lovecraft",
    "mack-reynolds",
    "p-g-wodehouse",
    "ring-lardner",
)

AUTHORS = (*OTHERS, SHARED, "frederik-pohl", "fritz-leiber", "h-beam-piper", "philip-k-dick", "poul-anderson")

PASSAGE = 200
"""Words."""

SIZES = {"train": 240, "validation": 60, "test": 240}
"""Documents of a split, of each class as many."""

LABELS = {100: range(5), 240: range(1)}
"""Labelled rows, and the seeds that draw them."""

ANSWERS = "windows, 128, the mean of their answers"
"""What the others are compared with."""

UNSHARED = "windows, 128, their maximum, without overlap"

ARMS = {
    ANSWERS: ("windows", 128, 0.25),
    UNSHARED: ("windows", 128, 0.0),
    "head, 128": ("head", 128, 0.25),
    "head, 512": ("head", 512, 0.25),
}
"""task.long_documents, finetune.max_length and task.overlap."""

POOLED: dict[str, Callable[[Floats], Floats]] = {
    "their maximum": lambda windows: windows.max(0),
    "their mean": lambda windows: windows.mean(0),
    "mean and maximum": lambda windows: np.concatenate([windows.mean(0), windows.max(0)]),
}

DECAYS = (0.01, 0.3, 3.0)
"""Weight decays that are tried where windows are weighted by attention."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


class Arm(NamedTuple):
    """What the head reads of each document: one window or several."""

    inputs: Floats
    """(windows, width)"""
    documents: Integers
    """(windows,), numbers of documents, ascending."""
    tokens: int
    """That passed through the model."""
    seconds: float
    """Of one core, for these tokens."""


class Halves:
    """The words of a book, of which passages are taken from the beginning on: no word stands in two."""

    def __init__(self, words: Sequence[str]) -> None:
        middle = len(words) // 2
        self._words = {"train": words[:middle], "test": words[middle:]}
        self._taken = {"train": 0, "test": 0}

    def passage(self, split: str, count: int) -> str:
        """Return the next words of a half: validation documents are of the first."""
        half = "test" if split == "test" else "train"
        start = self._taken[half]
        self._taken[half] = end = start + count
        if end > len(self._words[half]):
            raise ValueError(f"half a book has only {len(self._words[half])} words")
        return " ".join(self._words[half][start:end])


def make(name: str, texts: Path, folder: Path) -> None:
    """Write the documents of a set, a jsonl file for each split."""
    chance = random.Random(0)
    books = {}
    for author in AUTHORS:
        (path,) = texts.glob(f"{author}_*short-fiction*.txt")
        books[author] = Halves(path.read_text().split())
    classes = OTHERS if name == "mixed" else AUTHORS
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        rows = []
        for author in [author for author in classes for _ in range(size // len(classes))]:
            if name == "mixed":
                passages = [books[SHARED].passage(split, PASSAGE) for _ in range(3)]
                passages.insert(chance.randint(1, 3), books[author].passage(split, PASSAGE))
            else:
                passages = [books[author].passage(split, 4 * PASSAGE)]
            rows.append({"text": "\n".join(passages), "label": author})
        chance.shuffle(rows)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe(folder: Path, *options: str) -> Resolved:
    """Return the recipe for the documents in a folder."""
    path = ", ".join(f"{split}: {folder / f'{split}.jsonl'}" for split in SIZES)
    common = ["task=text_classification", f"task.path={{{path}}}", "adapt=none", "finetune=frozen", "compare=false"]
    return resolve(compose([*common, f"runs={folder / 'runs'}", *options]))


@torch.inference_mode()
def read(folder: Path, how: str, max_length: int, overlap: float) -> Arm:
    """Return what the head reads of the windows of the training and test documents, in this order."""
    kept = folder / f"{how}-{max_length}-{overlap}.npz"
    if not kept.exists():
        options = (f"task.long_documents={how}", f"finetune.max_length={max_length}", f"task.overlap={overlap}")
        resolved = recipe(folder, *options)
        plan, _ = finetune.prepare(resolved, [*resolved.rows.train, *resolved.rows.test])
        model: Any = plan.model.eval()
        started = time.process_time()
        found = []
        for row in range(len(plan.data.rows)):
            inputs = inputs_of(plan.data.collate([plan.data.rows[row]]))
            windows = {name: model._windows(tokens) for name, tokens in inputs.items()}
            found.append(model._vectors(windows, None)[1].numpy())
        seconds = time.process_time() - started
        documents = np.repeat(np.arange(len(found)), [len(windows) for windows in found])
        vectors, tokens = np.concatenate(found), plan.data.rows.lengths.sum()
        np.savez(kept, inputs=vectors, documents=documents, tokens=tokens, seconds=seconds)
    arrays = np.load(kept)
    return Arm(arrays["inputs"], arrays["documents"], int(arrays["tokens"]), float(arrays["seconds"]))


def pooled(arm: Arm, pool: Callable[[Floats], Floats]) -> Arm:
    """Return an arm whose windows of a document are one vector."""
    starts = np.flatnonzero(np.diff(arm.documents)) + 1
    vectors = np.stack([pool(windows) for windows in np.split(arm.inputs, starts)])
    return arm._replace(inputs=vectors, documents=np.arange(len(vectors)))


def answers(arm: Arm, labels: Integers, learnt: Sequence[int]) -> Integers:
    """Return the class of every document, by a head solved from some: the mean of what its windows answer."""
    sizes = np.bincount(arm.documents)
    known = np.isin(arm.documents, learnt)
    documents = arm.documents[known]
    inputs = HeadInputs(arm.inputs[known], labels[documents], (1 / sizes[documents]).astype(np.float32))
    weights, bias = solving.regression(inputs, labels.max() + 1, penalty=None)
    sums = np.zeros((len(sizes), len(bias)))
    np.add.at(sums, arm.documents, softmax(arm.inputs @ weights.T + bias, axis=1))
    return sums.argmax(1)


def by_attention(arm: Arm, labels: Integers, learnt: Sequence[int]) -> Integers:
    """Return the class of every document by windows that are weighted by attention, under one linear head.

    One vector scores the windows, and both are trained by 300 steps of AdamW at a rate of 0.01; weight decay is chosen
    of DECAYS by five folds of the labelled documents.
    """
    parts = np.split(arm.inputs, np.flatnonzero(np.diff(arm.documents)) + 1)
    known = np.concatenate([parts[document] for document in learnt])
    scale = np.maximum(known.std(0), solving.LEAST_SPREAD * np.median(known.std(0)))
    windows = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy((part - known.mean(0)) / scale) for part in parts], batch_first=True
    )
    counts = torch.tensor([len(part) for part in parts])
    is_padding, classes = torch.arange(windows.shape[1]) >= counts[:, None], torch.from_numpy(labels)

    def fitted(some: Sequence[int], decay: float) -> Integers:
        torch.manual_seed(0)
        head = torch.nn.Linear(windows.shape[2], int(labels.max()) + 1)
        query = torch.nn.Parameter(torch.zeros(windows.shape[2]))
        optimizer = torch.optim.AdamW([*head.parameters(), query], lr=1e-2, weight_decay=decay)

        def logits(of: Any) -> torch.Tensor:
            weights = (windows[of] @ query).masked_fill(is_padding[of], -torch.inf).softmax(1)
            return head((weights[..., None] * windows[of]).sum(1))

        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits(some), classes[some]).backward()
            optimizer.step()
        with torch.inference_mode():
            return logits(slice(None)).argmax(1).numpy()

    def right(decay: float) -> float:
        folds = [(learnt[fold::5], [one for one in learnt if one not in learnt[fold::5]]) for fold in range(5)]
        return float(np.mean([(fitted(others, decay)[held] == labels[held]).mean() for held, others in folds]))

    return fitted(learnt, max(DECAYS, key=right))


def tf_idf(texts: Sequence[str], labels: Integers, learnt: Sequence[int]) -> Integers:
    """Return the class of every document, by words and pairs of words, as in the references of `finetune`."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([texts[place] for place in learnt])
    features = words.transform(texts)
    return logistic_regression(features[learnt], labels[learnt].tolist()).predict(features)


def compare(folder: Path) -> None:
    """Print a row for each arm of a set.

    It has the tokens of a document, the seconds of one core for all of them, the accuracy with each number of labels,
    and with each how many points it is from the windows that answer together.
    """
    resolved = recipe(folder)
    rows = [*resolved.rows.train, *resolved.rows.test]
    number = {row.place: number for number, row in enumerate(rows)}
    texts = [str(row.fields["text"]) for row in rows]
    labels = np.array([resolved.rows.classes.index(row.fields["label"]) for row in rows])
    test = np.arange(len(resolved.rows.train), len(rows))
    samples = {
        count: [
            [
                number[row.place]
                for row in recipe(folder, f"task.train_samples={count}", f"task.sample_seed={seed}").rows.train
            ]
            for seed in seeds
        ]
        for count, seeds in LABELS.items()
    }
    arms = {name: read(folder, *options) for name, options in ARMS.items()}
    arms[UNSHARED] = pooled(arms[UNSHARED], POOLED["their maximum"])
    arms |= {f"windows, 128, {name}": pooled(arms[ANSWERS], pool) for name, pool in POOLED.items()}
    right: dict[str, dict[int, Integers]] = {}
    ways: dict[str, Callable[[Sequence[int]], Integers]]
    ways = {name: partial(answers, arm, labels) for name, arm in arms.items()}
    ways |= {"windows, 128, attention": partial(by_attention, arms[ANSWERS], labels)}
    for name, way in (ways | {"TF-IDF": partial(tf_idf, texts, labels)}).items():
        right[name] = {
            count: np.array([way(learnt)[test] == labels[test] for learnt in drawn]) for count, drawn in samples.items()
        }
        columns = [shown(scores.mean(1)) for scores in right[name].values()]
        columns += [difference(scores, right[ANSWERS][count]) for count, scores in right[name].items()]
        arm = arms.get(name)
        cost = f"{arm.tokens / len(rows):,.0f} | {arm.seconds:.0f}" if arm else "- | -"
        print(f"| {name} | {cost} | {' | '.join(columns)} |", flush=True)


def shown(scores: Floats) -> str:
    """Return the mean, the standard deviation and every score."""
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    return f"{scores.mean():.3f} +- {scores.std(ddof=1):.3f} ({' '.join(f'{score:.3f}' for score in scores)})"


def difference(scores: Integers, others: Integers) -> str:
    """Return the mean difference in points, and its interval by a bootstrap of the documents, all seeds together."""
    gains = (scores.astype(float) - others).mean(0) * 100
    means = np.random.default_rng(0).choice(gains, (10_000, len(gains))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{gains.mean():+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    for chosen in sys.argv[3:] or ["mixed", "single"]:
        make(chosen, source, target / chosen)
        print(f"{chosen}\n")
        compare(target / chosen)
