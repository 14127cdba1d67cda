"""The scores of texts that a model writes, beside those that are right.

All are shares: times 100 they are what papers print.
"""

import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from typing import final

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from ulmfit_style.words import apart

Texts = Sequence[str]

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

ROUGE_SIGNATURE = f"fmeasure|stem:no|words:all scripts, lower case|split:lines|version:{version('rouge-score')}"


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
