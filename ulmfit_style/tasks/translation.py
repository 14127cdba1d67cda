"""Translation: a text in another language."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, final

from pydantic import Field

from ulmfit_style.config.section import Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.tasks.base import Answer, Column, Feature, Row
from ulmfit_style.tasks.base_generation import GenerationTask, TextScores
from ulmfit_style.tasks.base_text import clean_text, text_problem
from ulmfit_style.tasks.types import Generation, Label2id, Model, Tokenizer
from ulmfit_style.tasks.values import Pipeline

BOTH = "translation"
"""The column that holds a text in all its languages: {"en": "A house.", "de": "Ein Haus."}."""


@final
class Translation(GenerationTask):
    """Rows of a text and its translation."""

    metric: ClassVar[str] = "chrf"
    metrics: ClassVar[str] = "translation"
    pipeline: ClassVar[Pipeline] = Pipeline("translation", exists=False)
    answer_field: ClassVar[str] = "translation_text"

    source_language: str
    """The language of the text, as the file has it: the column `en`, or `en` in {"translation": {"en": ..., ...}}."""
    target_language: str
    """The language of the translation, as the file has it."""
    codes: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)] | None = None
    """What the tokenizer of a model of many languages calls the two: [en_XX, de_DE] (mBART), [eng_Latn, deu_Latn]
    (NLLB); null: as the file does."""
    text: Annotated[str | None, Unhashed] = None
    """The column of the text; null: found by its name (the language, translation, source ...)."""
    translation: Annotated[str | None, Unhashed] = None
    """The column of the translation; null: found by its name (the language, translation, target ...)."""

    @property
    def default_prompt(self) -> str:  # type: ignore[override]  # it depends on the languages
        return f"{self.source_language}: {{text}}\n{self.target_language}: "

    def inputs(self) -> dict[str, Column]:
        return {"text": Column("task.text", self.text, (self.source_language.casefold(), BOTH, "source", "src"))}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        pair = row[columns[BOTH]] if BOTH in columns else None
        if not isinstance(pair, dict) or len(pair) != 2:
            return None
        return dict(zip(("source_language", "target_language"), pair, strict=True))

    def targets(self) -> dict[str, Column]:
        names = (self.target_language.casefold(), BOTH, "target", "tgt")
        return {"translation": Column("task.translation", self.translation, names)}

    def row_problem(self, row: Row) -> str | None:
        for field, language in (("text", self.source_language), ("translation", self.target_language)):
            value = row.fields[field]
            text = value.get(language) if isinstance(value, dict) else value
            if problem := _missing(field, value, language) or text_problem(field, text):
                return problem
        return None

    def input_problem(self, row: Row) -> str | None:
        value = row.fields["text"]
        return _missing("text", value, self.source_language) if isinstance(value, dict) else super().input_problem(row)

    def source(self, row: Row) -> str:
        return _in(self.source_language, row.fields["text"])

    def target(self, row: Row) -> str:
        return _in(self.target_language, row.fields["translation"])

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        codes = self._codes(tokenizer)
        if codes is not None and codes != (tokenizer.src_lang, tokenizer.tgt_lang):
            tokenizer.src_lang, tokenizer.tgt_lang = codes
        return super().encode(row, tokenizer, max_length, label2id)

    def settings(self, model: Model, tokenizer: Tokenizer) -> Generation:
        settings, codes = super().settings(model, tokenizer), self._codes(tokenizer)
        # A right answer has its language first (mBART-50, NLLB), or last, from where it is put first (mBART).
        if codes is not None:
            tokenizer.tgt_lang = codes[1]
            target, language = tokenizer(text_target="")["input_ids"], tokenizer.convert_tokens_to_ids(codes[1])
            if target[0] == language:
                settings.forced_bos_token_id = language
            else:
                settings.decoder_start_token_id = language
        return settings

    def _codes(self, tokenizer: Tokenizer) -> tuple[str, str] | None:
        """Return what the tokenizer calls the languages; None where it knows none.

        Raises:
            UserError: if it knows some, and not these.
        """
        if not hasattr(tokenizer, "src_lang"):
            return None
        source, target = self.codes or (self.source_language, self.target_language)
        known = sorted(str(token) for token in tokenizer.all_special_tokens if "_" in str(token))
        for language in (source, target):
            if language not in known:
                remedy = f"name both as it does ({', '.join(known[:5])} ...)"
                raise UserError(f"task.codes: the model has no language '{language}'; {remedy}")
        return source, target

    def baseline_answers(self, rows: Sequence[Row]) -> dict[str, list[Answer]]:
        return {"the text, not translated": [{self.answer_field: self.source(row)} for row in rows]}

    def text_scores(self, written: Sequence[str], targets: Sequence[str]) -> TextScores:
        return self.scoring.text_scores(written, targets, self.target_language)


def _in(language: str, value: Any) -> str:
    """Return a text, or that of a language where there are several."""
    return clean_text(value.get(language) if isinstance(value, dict) else value)


def _missing(field: str, value: Any, language: str) -> str | None:
    """Return that a field which has several languages lacks one."""
    lacks = isinstance(value, dict) and language not in value
    return f"the {field} is not there in '{language}' (there are: {', '.join(value)})" if lacks else None
