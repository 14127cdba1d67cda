"""What a word is in any script, where blanks tell it and where they do not."""

import regex

CHARACTER = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A Chinese character or a Japanese syllable: a word by itself, for no blank tells where a longer one ends."""

UNSPACED = regex.compile(rf"{CHARACTER}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]\p{{M}}*")
"""One of these, or a letter with its marks of Thai, Lao, Burmese or Khmer: no blanks between words there either."""

TERM = regex.compile(rf"{UNSPACED.pattern}|(?:(?!{UNSPACED.pattern})[\w\p{{M}}\p{{N}}]){{2,}}")
"""What TF-IDF counts: words of two letters and more, as in scikit-learn, but with their marks, which are the vowels of
Hindi; and each character where there are no blanks."""


def apart(text: str) -> str:
    """Return a text with blanks around Chinese characters and kana."""
    return text if text.isascii() else regex.sub(CHARACTER, r" \g<0> ", text)
