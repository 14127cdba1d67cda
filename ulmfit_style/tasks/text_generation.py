"""Text generation: a decoder continues a prompt, answers in a chat, or learns documents as they are."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, final

from pydantic import ValidationInfo, field_validator

from ulmfit_style.config.section import Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.metrics.intervals import Points
from ulmfit_style.tasks.base import COLUMNS, IGNORED, Answer, Column, Feature, Name, Row
from ulmfit_style.tasks.base_generation import GenerationTask, TextScores, end_of, ids_of
from ulmfit_style.tasks.base_text import clean_text, text_problem
from ulmfit_style.tasks.types import Label2id, Tokenizer
from ulmfit_style.tasks.values import Architecture

READ = {"completions": "prompt", "messages": "messages", "documents": "text"}
"""What each form of a row has for the model to read."""


@final
class TextGeneration(GenerationTask):
    """Rows of a prompt and its completion, of the messages of a chat, or of a document."""

    metric: ClassVar[str] = "token_accuracy"
    answer_field: ClassVar[str] = "generated_text"
    default_prompt: ClassVar[str] = "{text}"

    form: Literal["completions", "messages", "documents"] = "completions"
    """What a row is. completions: a prompt and a completion, which alone is learnt. messages: a list of messages, each
    {role: user, content: ...}, in the tokenizer's chat template; the last one, the assistant's, is learnt. documents: a
    text, all of which is learnt."""
    text: Annotated[Name | None, Unhashed] = None
    """The column of the prompt, the messages or the document; null: found by its name (prompt, messages, text ...)."""
    completion: Annotated[str | None, Unhashed] = None
    """The column of the completion; null: found by its name (completion, answer, response ...)."""

    @field_validator("form")
    @classmethod
    def _has_no_other_prompt(cls, form: str, info: ValidationInfo) -> str:
        if form != "completions" and info.data.get("prompt") is not None:
            raise ValueError("has no prompt beside it; leave task.prompt out")
        return form

    @property
    def long_texts(self) -> str:
        return "read in pieces" if self.form == "documents" else "cut at their beginning"

    def for_architecture(self, architecture: Architecture) -> Self:
        task = super().for_architecture(architecture)
        if not task._causal and self.form != "completions":
            kind = f"a model of type '{architecture.model_type}' has an encoder, and cannot continue a text"
            raise UserError(f"task.form={self.form}: {kind}; take a decoder, such as model=gpt2")
        return task

    def scored_by(self) -> Sequence[Literal["answers", "likelihoods"]]:
        return ["likelihoods"] if self.form == "documents" else super().scored_by()

    def inputs(self) -> dict[str, Column]:
        return {"text": Column("task.text", self.text, COLUMNS[READ[self.form]], f"; task.form={self.form}")}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        if "messages" in columns:
            return {"form": "messages"}
        return {} if "prompt" in columns and columns.keys() & {"completion", "response"} else None

    def targets(self) -> dict[str, Column]:
        column = Column("task.completion", self.completion, COLUMNS["completion"])
        return {"completion": column} if self.form == "completions" else {}

    def keeps(self, row: Row) -> bool:
        return self.form != "documents" or bool(clean_text(row.fields["text"]))

    def row_problem(self, row: Row) -> str | None:
        if self.form != "messages":
            return super().row_problem(row)
        problem = _messages_problem(row.fields["text"])
        if problem is None and row.fields["text"][-1]["role"] != "assistant":
            return "the last message is not the assistant's, so there is nothing to learn"
        return problem or text_problem("answer", self.target(row))

    def input_problem(self, row: Row) -> str | None:
        is_chat = self.form == "messages" and not isinstance(row.fields["text"], str)
        return _messages_problem(row.fields["text"]) if is_chat else super().input_problem(row)

    def source(self, row: Row) -> str:
        if self.form == "messages":
            return "\n".join(message["content"] for message in _question(row))
        return "" if row.fields["text"] is None else str(row.fields["text"])

    def target(self, row: Row) -> str:
        if self.form == "messages":
            return str(row.fields["text"][-1]["content"])
        return str(row.fields["completion" if self.form == "completions" else "text"])

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        if self.form == "documents" and label2id is not None:
            return self._pieces(row, tokenizer, max_length)
        return super().encode(row, tokenizer, max_length, label2id)

    def prompted(self, row: Row, tokenizer: Tokenizer) -> tuple[str, str]:
        if self.form == "messages":
            return "", _rendered(tokenizer, _question(row), asking=True)
        return "", "".join(super().prompted(row, tokenizer))  # what is to be completed is cut at its beginning

    def first_token(self, tokenizer: Tokenizer) -> list[int]:
        return [] if self.form == "messages" else super().first_token(tokenizer)  # a chat template has it

    def written(self, row: Row, tokenizer: Tokenizer) -> str:
        if self.form != "messages":
            return self.target(row)
        question = _rendered(tokenizer, _question(row), asking=True)
        whole = _rendered(tokenizer, row.fields["text"], asking=False)
        answer = whole.removeprefix(question) if whole.startswith(question) else self.target(row)
        # The template's own end of a message; the answer may hold its token too.
        before, content, suffix = answer.rpartition(self.target(row).strip())
        return before + content + suffix.partition(str(tokenizer.eos_token))[0]

    def _pieces(self, row: Row, tokenizer: Tokenizer, max_length: int) -> list[Feature]:
        """Return a document in pieces, each from the last token of the one before: all but the first are learnt."""
        ids = [*self.first_token(tokenizer), *ids_of(tokenizer, self.source(row)), end_of(tokenizer)]
        parts = [ids[start : start + max_length] for start in range(0, len(ids) - 1, max_length - 1)]
        unlearnt = len(str(tokenizer.decode(ids[:1], skip_special_tokens=True)).encode())
        sizes = [len(self.source(row).encode()) - unlearnt, *[0] * (len(parts) - 1)]
        return [
            {"input_ids": part, "attention_mask": [1] * len(part), "labels": [IGNORED, *part[1:]], "bytes": size}
            | {"long": len(parts) > 1}
            for part, size in zip(parts, sizes, strict=True)
        ]

    def text_scores(self, written: Sequence[str], targets: Sequence[str]) -> TextScores:
        same = [text.split() == target.split() for text, target in zip(written, targets, strict=True)]
        scores, signatures = super().text_scores(written, targets)
        return {"exact_match": sum(same) / len(same), **scores}, signatures

    def row_scores(self, answers: Sequence[Answer], targets: Sequence[str]) -> Points:
        return [(answer["hits"], answer["tokens"]) for answer in answers]


def _rendered(tokenizer: Tokenizer, messages: Sequence[Any], *, asking: bool) -> str:
    """Return messages as the tokenizer's chat template has them, up to where the assistant begins if `asking`."""
    if tokenizer.chat_template is None:
        raise UserError("task.form=messages: the model has no chat template; choose one that has, or form=completions")
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asking))


def _question(row: Row) -> list[Any]:
    """Return the messages that the assistant is to answer; a text is a single one."""
    messages = row.fields["text"]
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return list(messages[:-1] if messages[-1]["role"] == "assistant" else messages)


def _messages_problem(messages: Any) -> str | None:
    """Return what is wrong with the messages of a chat."""
    if not isinstance(messages, list) or not messages:
        return "the messages are not a list"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            return f"message {number} lacks a role or a content; write {{role: user, content: ...}}"
    return None
