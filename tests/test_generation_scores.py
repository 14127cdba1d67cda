"""The scores of texts against the libraries', and in scripts that these do not know."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from samples import reviews

from ulmfit_style.metrics import generation, translation

RIGHT = [text for text, _, _ in reviews(30)]
OURS = [text.replace("film", "plot").replace("a ", "the ") for text in RIGHT[5:]]
OURS += ["", "a", "plot, film!", "x" * 30, "!"]


def test_rouge_is_that_of_rouge_score_on_english():
    scorer = RougeScorer(generation.ROUGES)
    found = generation.rouge(OURS, RIGHT)
    for number, (ours, right) in enumerate(zip(OURS, RIGHT, strict=True)):
        expected = {name: score.fmeasure for name, score in scorer.score(right, ours).items()}
        assert {name: found[name][number] for name in generation.ROUGES} == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Bücher, die Größe!", ["bücher", "die", "größe"]),
        ("日本語のテキスト", list("日本語のテキスト")),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("don't stop_now 3.5", ["don", "t", "stop", "now", "3", "5"]),
        ("\uff21\uff22 a", ["ab", "a"]),
    ],
)
def test_words_of_all_scripts_count(text: str, words: list[str]):
    assert generation.Words().tokenize(text) == words
    assert generation.rouge([text], [text]) == {name: [1.0] for name in generation.ROUGES}


def test_chrf_and_bleu_are_those_of_sacrebleu_with_their_signatures():
    scores, signatures = translation.text_scores(OURS, RIGHT, "de")
    assert scores["chrf"] == pytest.approx(CHRF().corpus_score(OURS, [RIGHT]).score / 100)
    assert scores["bleu"] == pytest.approx(BLEU().corpus_score(OURS, [RIGHT]).score / 100)
    assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert "tok:13a" in signatures["bleu"]
    assert "tok:zh" in translation.text_scores(["a"], ["a"], "zh_CN")[1]["bleu"]

    assert translation.of_means(np.array(translation.points([""], [""])[0])) == 0
