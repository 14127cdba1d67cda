"""Which model fits a text, by its script and language; and whether a tokenizer can read it at all."""

import unicodedata
from collections import Counter
from contextlib import suppress
from itertools import islice

from ulmfit_style.cli import CONF
from ulmfit_style.config.training import Model
from ulmfit_style.console import say_once
from ulmfit_style.data import labelled
from ulmfit_style.models import checkpoints
from ulmfit_style.recipe import Config, read

SAMPLE = 200
"""Texts that are looked at."""

ENGLISH, OTHER = "minilm", "multilingual_e5_small"
"""The encoders that `model=auto` chooses from: YAMLs in conf/model/. The first is always there."""

BROKEN = 0.2
"""The share of the tokens, unknown or parts of a character, from which on a model does not fit: 94 % where it cannot
read a script, and at most 3 % elsewhere."""


def _sample(config: Config) -> list[str]:
    """Return some of the texts that a recipe is about."""
    from ulmfit_style.data import corpus  # which loads pyarrow

    if config.task is not None and config.task.path.files():
        return config.task.documents(labelled.load(config.task).pool[:SAMPLE])
    return list(islice(corpus.load(config.corpus, config.task, config.runs).train, SAMPLE))


def choose(config: Config) -> Model:
    """Return the model that `model=auto` stands for, and say why it is that one."""
    text, language = "\n".join(_sample(config)), "en"
    letters = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    script = max(letters, key=lambda name: letters[name], default="LATIN")
    with suppress(ImportError):
        import py3langid

        language = py3langid.classify(text)[0]
    names = [ENGLISH] if (script, language) == ("LATIN", "en") else [OTHER, ENGLISH]
    models = {name: Model.model_validate(read(CONF / "model" / f"{name}.yaml")) for name in names}
    name = next(name for name, model in models.items() if checkpoints.is_reachable(model))
    missed = "" if name == names[0] else f"; {names[0]} would fit, but is not on the disk, and the Hub is out of reach"
    say_once(f"model=auto takes {name}: letters are {script.title()}, the language is {language}{missed}")
    return models[name]


def say_if_unfit(config: Config) -> None:
    """Say how much of the recipe's text the checkpoint's tokenizer breaks into what means nothing, if that is much."""
    from tokenizers import Tokenizer

    if config.model.checkpoint is None:
        return
    if not (path := checkpoints.resolve(config.model, "model.checkpoint").directory / "tokenizer.json").exists():
        return
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encodings = tokenizer.encode_batch(_sample(config), add_special_tokens=False)
    broken = 0
    for encoding in encodings:
        sharing = Counter(encoding.offsets)  # a character of several tokens is in bytes, or in strokes
        tokens = zip(encoding.tokens, encoding.offsets, strict=True)
        broken += sum(token in ("[UNK]", "<unk>") or sharing[place] > 1 for token, place in tokens)
    if (share := broken / max(1, sum(map(len, encodings)))) > BROKEN:
        what = f"{share:.0%} of the tokens of this text are unknown to {config.model.title()}, or parts of a character"
        say_once(f"model: {what}, so it can hardly learn; take one for this script, such as model={OTHER}")
