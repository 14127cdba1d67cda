"""The scores of translations, shares as those of other texts: times 100 they are what papers print."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from ulmfit_style.metrics.intervals import Array, divided

Texts = Sequence[str]

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}
"""sacrebleu's tokenizers of languages that put no blanks between words, without a dictionary; all others have 13a."""


def text_scores(predictions: Texts, references: Texts, language: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return `chrf` (Popović 2015) and `bleu` of all rows together, and their signatures.

    Args:
        language: That of the references, such as "de", by which BLEU divides them into words.
    """
    metrics = {"chrf": CHRF(), "bleu": BLEU(tokenize=BLEU_TOKENIZERS.get(language[:2], "13a"))}
    scores = {name: metric.corpus_score(predictions, [references]).score / 100 for name, metric in metrics.items()}
    return scores, {name: str(metric.get_signature()) for name, metric in metrics.items()}


def points(predictions: Texts, references: Texts) -> list[list[float]]:
    """Return what chrF sums over the rows: of each order of n-grams those of the model, the right ones, and both's."""
    # As sacrebleu itself does for its intervals; it has no public name.
    return CHRF()._extract_corpus_statistics(predictions, [references])


def of_means(means: Array) -> Array:
    """Return chrF from the means of its points: (..., numbers) to (...)."""
    ours, right, both = np.moveaxis(means.reshape(*means.shape[:-1], -1, 3), -1, 0)
    orders = ((ours > 0) & (right > 0)).sum(axis=-1).astype(float)
    precision, recall = (divided(divided(both, side).sum(axis=-1), orders) for side in (ours, right))
    return divided((1 + CHRF.BETA**2) * precision * recall, CHRF.BETA**2 * precision + recall)
