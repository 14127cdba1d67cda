"""The scores of texts that a model writes, beside those that are right.

All are shares: times 100 they are what papers print.
"""

import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from typing import final

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ulmfit_style.metrics.intervals import Array, divided
from ulmfit_style.words import apart

Texts = Sequence[str]

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

ROUGE_SIGNATURE = f"fmeasure|stem:no|words:all scripts, lower case|split:lines|version:{version('rouge-score')}"

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}
"""sacrebleu's tokenizers of languages that put no blanks between words, without a dictionary; all others have 13a."""


@final
class Words(Tokenizer):
    """Words of all scripts: runs of letters, marks and digits; Chinese characters and kana each by themselves.

    rouge-score's own throws away every letter that is not ASCII: of Korean nothing is left, of "Bücher" two words.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        signs = unicodedata.normalize("NFKC", text).lower()
        words = "".join(sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in signs)
        return apart(words).split()


def rouge(predictions: Texts, references: Texts) -> dict[str, list[float]]:
    """Return the F-measure of each row, of ROUGE-1, -2, -L and -Lsum (Lin 2004)."""
    scorer = RougeScorer(ROUGES, tokenizer=Words())
    rows = [scorer.score(right, ours) for ours, right in zip(predictions, references, strict=True)]
    return {name: [float(row[name].fmeasure) for row in rows] for name in ROUGES}


def translation(predictions: Texts, references: Texts, language: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return `chrf` (Popović 2015) and `bleu` of all rows together, and their signatures.

    Args:
        language: That of the references, such as "de", by which BLEU divides them into words.
    """
    metrics = {"chrf": CHRF(), "bleu": BLEU(tokenize=BLEU_TOKENIZERS.get(language[:2], "13a"))}
    scores = {name: metric.corpus_score(predictions, [references]).score / 100 for name, metric in metrics.items()}
    return scores, {name: str(metric.get_signature()) for name, metric in metrics.items()}


def chrf_points(predictions: Texts, references: Texts) -> list[list[float]]:
    """Return what chrF sums over the rows: of each order of n-grams those of the model, the right ones, and both's."""
    # As sacrebleu itself does for its intervals; it has no public name.
    return CHRF()._extract_corpus_statistics(predictions, [references])


def chrf_of_means(means: Array) -> Array:
    """Return chrF from the means of its points: (..., numbers) to (...)."""
    ours, right, both = np.moveaxis(means.reshape(*means.shape[:-1], -1, 3), -1, 0)
    orders = ((ours > 0) & (right > 0)).sum(axis=-1).astype(float)
    precision, recall = (divided(divided(both, side).sum(axis=-1), orders) for side in (ours, right))
    return divided((1 + CHRF.BETA**2) * precision * recall, CHRF.BETA**2 * precision + recall)
