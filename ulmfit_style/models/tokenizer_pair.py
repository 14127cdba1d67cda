"""The tokenizers of a finished model: one, or one of what it reads and another of what it writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from ulmfit_style.models import checkpoints
from ulmfit_style.tasks.types import Tokenizer

FOLDER = "decoder_tokenizer"
"""The folder of the tokenizer of what is written, within a model's own."""

OF_TARGET = ("decode", "batch_decode", "pad_token_id", "eos_token_id", "sep_token_id")
"""What is asked of the tokenizer of what is written; all else is asked of the other."""


@final
class TokenizerPair:
    """Two tokenizers that are used as one: as transformers itself uses Marian's, which knows two languages."""

    def __init__(self, source: Tokenizer, target: Tokenizer) -> None:
        self.source, self.target = source, target

    def __call__(self, text: str | None = None, *, text_target: str | None = None, **options: Any) -> Mapping[str, Any]:
        """Return the tokens of a text that is read, or of one that is written (`text_target`)."""
        return self.target(text_target, **options) if text is None else self.source(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target if name in OF_TARGET else self.source, name)

    def save_pretrained(self, directory: Path) -> None:
        """Save both."""
        self.source.save_pretrained(directory)
        self.target.save_pretrained(directory / FOLDER)


def read(directory: Path) -> Tokenizer:
    """Return the tokenizer, or the two, of a model's directory; one without a padding token pads with its end."""
    tokenizer = checkpoints.tokenizer(directory)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not (directory / FOLDER).is_dir():
        return tokenizer
    return cast("Tokenizer", TokenizerPair(tokenizer, checkpoints.tokenizer(directory / FOLDER)))
