"""Problems of labelled texts that no single row shows: copies, contradictions, rare classes and likely label errors."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ulmfit_style.artefacts.predictions import Prediction
from ulmfit_style.console import say
from ulmfit_style.data.labelled import Labelled
from ulmfit_style.data.rows import normalised
from ulmfit_style.errors import listed
from ulmfit_style.words import apart

FEWEST = 8
"""A class of fewer training rows than this is reported."""

NEARLY = 0.8
"""The share of their pairs of words that two near copies have in common."""

HASHES, BANDS, CHUNK = 128, 32, 1000
"""Texts that agree in one band of their hashes are compared: at `NEARLY` these are nearly all pairs."""

DEBRIS = re.compile(r"\ufffd|[\ud800-\udfff\0]|[\xc2\xc3][\x80-\xbf]|\xe2\u20ac|&(?:amp|lt|gt|quot|nbsp|#\d+);")
"""What is left of a text that was read in another encoding than its own, and of HTML."""

MOST, SAMPLE = 100_000, 20_000
"""Rows of which a run looks at all before it trains, and rows that it looks at where there are more."""

BYTES_PER_TOKEN = 4
"""About, for what is told before a tokenizer is at hand."""

MOST_CUT = 0.2
"""The share of texts that may be cut before it is told what reads more of them."""

KEPT = 100
"""Cases of each kind that are kept with a model."""

Case = tuple[str, str]
"""The place of a row, or a class, and what it is about: another row, or what stands there."""

Findings = Mapping[str, Sequence[Case]]
"""Cases by what they are."""


def findings(rows: Labelled, *, is_quick: bool = False) -> Findings:
    """Return what is found in labelled rows. Of two that are alike the later one is reported, or the training row.

    Args:
        is_quick: Whether only `SAMPLE` are looked at of more than `MOST`, by the hash of their texts: so copies are
            together.
    """
    task, found = rows.task, defaultdict[str, list[Case]](list)
    scored = rows.test[:0] if rows.folds else rows.test + rows.validation
    others = rows.repeats + rows.pool
    every = scored + others[~np.isin(others.places, scored.places)]  # the test rows of a fold are in the pool too
    if is_quick and len(every) > MOST:
        say(f"data: of {len(every):,} rows {SAMPLE:,} are looked at, and all of them by make check-data")
        keys = every.column("key").byteswap()  # reversed, for by its beginning a row is a test row
        every = every[keys <= np.sort(keys)[SAMPLE - 1]]
    is_held, is_left_out = (np.isin(every.places, part.places) for part in (scored, rows.repeats))
    places, tested, first = list[str](), dict[int, str](), dict[str, tuple[int, Any]]()
    for number, (row, key) in enumerate(zip(every, every.column("key").tolist(), strict=True)):
        places.append(row.place)
        target = task.target(row)
        says = task.labels_of(row) or (target if isinstance(target, float) else None)  # what one text should agree on
        same, said = first.setdefault("\n".join(map(normalised, task.texts(row))), (number, says))
        if is_held[number]:
            tested[key] = row.place
        elif is_left_out[number]:
            found["texts of test or validation in train, left out there"].append((row.place, tested.get(key, "")))
        if said != says:
            found["texts with another label elsewhere"].append((row.place, places[same]))
        elif same != number and not is_left_out[number]:
            found["copies"].append((row.place, places[same]))
    texts, unique = list(first), [number for number, _ in first.values()]
    for later, earlier in near(texts):
        row, other = unique[later], unique[earlier]
        where = " of test or validation in train" if is_held[other] and not is_held[row] else ""
        found[f"near copies{where}"].append((places[row], places[other]))
    for text, (row, _) in first.items():
        if len(text) < 2:
            found["texts of one character"].append((places[row], text))
        if debris := DEBRIS.search(text):
            found["debris of encodings or HTML"].append((places[row], ascii(debris[0])))
    counts = Counter(label for labels in rows.pool.labels for label in labels)
    rare = [(label, f"{count} rows") for label, count in counts.items() if count < FEWEST]
    return found | ({f"classes of fewer than {FEWEST} training rows": rare} if rare else {})


def near(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return each text that nearly equals an earlier one, with the first of those, by their numbers.

    What two texts share is estimated by MinHash (Leskovec et al. 2020, sections 3.3 and 3.4).
    """
    from rensa import RMinHash

    matrix, numbers = np.zeros((len(texts), HASHES), np.uint32), np.arange(len(texts))
    for start in range(0, len(texts), CHUNK):
        pairs = list(map(_pairs, texts[start : start + CHUNK]))
        matrix[start : start + CHUNK] = RMinHash.digest_matrix_from_token_sets(pairs, HASHES, 0).to_rows()
    first = numbers.copy()
    for band in np.split(matrix, BANDS, axis=1) if texts else ():
        _, starts, members = np.unique(band, axis=0, return_index=True, return_inverse=True)
        earlier = starts[members.ravel()]
        rows = numbers[earlier < first]
        alike = rows[(matrix[rows] == matrix[earlier[rows]]).mean(axis=1) >= NEARLY]
        first[alike] = earlier[alike]
    return [(later, earlier) for later, earlier in enumerate(first.tolist()) if earlier < later]


def _pairs(text: str) -> list[str]:
    words = re.findall(r"\w+", apart(text.casefold()))
    return list(map(" ".join, pairwise(words))) or words or [text]


def label_errors(answers: Sequence[Prediction]) -> list[Case]:
    """Return the rows whose labels are likely wrong, the likeliest first, by answers of models that did not learn them.

    Confident learning (Northcutt et al. 2021, section 3.1): a row is likely of another class if that class has at least
    the mean probability in it that it has in its own rows.
    """
    own, ranked = defaultdict[str, list[float]](list), list[tuple[float, Case]]()
    answers = [answer for answer in answers if answer.get("scores") and isinstance(answer["target"], str)]
    for answer in answers:
        own[answer["target"]].append(answer["scores"].get(answer["target"]) or 0)
    for answer in answers:
        label, scores = answer["target"], {name: score or 0 for name, score in answer["scores"].items()}
        reached = [name for name, own_scores in own.items() if scores.get(name, 0) >= np.mean(own_scores)]
        likeliest = max(reached, key=lambda name: scores.get(name, 0), default=label)
        if likeliest != label:
            case = (f"{answer['file']}:{answer['row']}", f"{label}, rather {likeliest}")
            ranked.append((scores.get(label, 0) - scores[likeliest], case))
    return [case for _, case in sorted(ranked)]


def tell(found: Findings) -> None:
    """Print a line on each kind of finding."""
    for what, cases in found.items():
        say(f"data: {what}: {len(cases):,} ({listed([place for place, _ in cases], 3)})")
