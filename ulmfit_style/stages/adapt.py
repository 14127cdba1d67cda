"""adapt: continued pretraining of the checkpoint's language model on the corpus (ULMFiT, section 3.2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulmfit_style.console import say
from ulmfit_style.data import guard, languages
from ulmfit_style.errors import UserError
from ulmfit_style.models import checkpoints
from ulmfit_style.resolved import Resolved, Stage, Step
from ulmfit_style.results.parts import Size
from ulmfit_style.training import checks

LITTLE_TEXT = 1_100_000
"""Bytes of a corpus with which adaptation gained a point at most that fresh data confirmed (docs/measured.md)."""


def starts_from(resolved: Resolved) -> str | None:
    """Return the stage that makes what is adapted: random weights, trained or not; None for a checkpoint."""
    if resolved.config.model.init == "pretrained":
        return None
    return "scratch" if resolved.config.pretrain is None else "pretrain"


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the model and the options, and say where the text is little.

    Raises:
        UserError: if the config adapts nothing, or the model cannot be trained so.
    """
    config = resolved.config
    if config.adapt is None and "finetune" in stages:
        return
    if config.model.init == "scratch" and config.pretrain is None:
        raise UserError("pretrain=none: there is no language model to adapt; use pretrain=plain, or adapt=none")
    checks.language_model(config, "adapt", resolved.adapt)
    if resolved.adapt.new_tokens and config.model.checkpoint is not None:
        from ulmfit_style.models import new_tokens

        tokenizer = checkpoints.tokenizer(checkpoints.resolve(config.model, "model.checkpoint").directory)
        new_tokens.check(resolved.adapt.new_tokens, tokenizer)
    languages.say_if_unfit(config)
    if (size := resolved.corpus.train.bytes) <= LITTLE_TEXT:
        found = f"on up to {Size(LITTLE_TEXT)} a small encoder gained a point with 1,000 labels, nothing with few"
        say(f"adapt: so little text ({Size(size)}) may be worth nothing: {found} (docs/measured.md)")


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the adapted model depends on."""
    general, asked, options = resolved.general_text, resolved.adapt.new_tokens, resolved.adapt.determinants()
    determinants = {"init": resolved.source_of("adapt").identity, "corpus": resolved.corpus.identity, "adapt": options}
    if asked:
        from ulmfit_style.models import new_tokens

        determinants["new_tokens"] = new_tokens.lines(asked) if isinstance(asked, str) else asked
    if general is not None:
        determinants["general"] = general.identity
    return determinants


def steps(stage: Stage, resolved: Resolved, stages: Sequence[str]) -> list[Step]:
    """Return the step, where the config adapts."""
    if resolved.config.adapt is None:
        return []
    asked = resolved.config.adapt.new_tokens
    more = f", with new tokens ({asked})" if asked else ""
    return [Step(stage, resolved, f"adapt: {resolved.config.model.title()} learns the corpus{more}")]


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the model."""
    return 3 * resolved.adapt.epochs * resolved.corpus.train.bytes / guard.BYTES_PER_TOKEN


def run(step: Step, directory: Path) -> None:
    """Train the language model."""
    from ulmfit_style.training.language_model import prepare, train_language_model

    resolved, source = step.resolved, step.resolved.source_of("adapt").directory
    prepared = prepare(step.config, resolved.adapt, source, resolved.corpus, resolved.general_text)
    train_language_model(prepared, source, resolved.corpus, directory)
