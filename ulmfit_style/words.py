"""What a word is in any script, where blanks tell it and where they do not."""

import regex

CHARACTER = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A Chinese character or a Japanese syllable: a word by itself, for no blank tells where a longer one ends."""

UNSPACED = regex.compile(rf"{CHARACTER}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""One of these, or a letter or mark of Thai, Lao, Burmese or Khmer, which have no blanks between words either."""

TERM = regex.compile(rf"{UNSPACED.pattern}|(?:(?!{UNSPACED.pattern})[\w\p{{M}}\p{{N}}]){{2,}}")
"""What TF-IDF counts: words of two letters and more, as in scikit-learn, but with their marks, which are the vowels of
Hindi; and each character where there are no blanks."""


def apart(text: str) -> str:
    """Return a text with blanks around each character of a script that has none between words."""
    return text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)
