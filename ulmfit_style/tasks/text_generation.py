"""Text generation: a prompt is completed, or a decoder answers in a chat."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, final

from pydantic import ValidationInfo, field_validator

from ulmfit_style.config.section import Unhashed
from ulmfit_style.errors import UserError
from ulmfit_style.metrics.intervals import Points
from ulmfit_style.tasks.base import COLUMNS, Answer, Column, Name, Row
from ulmfit_style.tasks.base_generation import GenerationTask, TextScores
from ulmfit_style.tasks.base_text import text_problem
from ulmfit_style.tasks.types import Tokenizer
from ulmfit_style.tasks.values import Architecture


@final
class TextGeneration(GenerationTask):
    """Rows of a prompt and its completion, or of the messages of a chat."""

    metric: ClassVar[str] = "token_accuracy"
    long_texts: ClassVar[str] = "cut at their beginning"
    answer_field: ClassVar[str] = "generated_text"
    default_prompt: ClassVar[str] = "{text}"

    form: Literal["completions", "messages"] = "completions"
    """What a row is. completions: a prompt and a completion, which alone is learnt. messages: a list of messages, each
    {role: user, content: ...}, in the tokenizer's chat template; the last one, the assistant's, is learnt. Texts that
    are to be learnt as they are, `adapt` learns."""
    text: Annotated[Name | None, Unhashed] = None
    """The column of the prompt or the messages; null: found by its name (prompt, question, messages ...)."""
    completion: Annotated[str | None, Unhashed] = None
    """The column of the completion; null: found by its name (completion, answer, response ...)."""

    @field_validator("form")
    @classmethod
    def _has_no_other_prompt(cls, form: str, info: ValidationInfo) -> str:
        if form != "completions" and info.data.get("prompt") is not None:
            raise ValueError("has no prompt beside it; leave task.prompt out")
        return form

    def for_architecture(self, architecture: Architecture) -> Self:
        task = super().for_architecture(architecture)
        if not task._causal and self.form != "completions":
            kind = f"a model of type '{architecture.model_type}' has an encoder, and cannot continue a text"
            raise UserError(f"task.form={self.form}: {kind}; take a decoder, such as model=gpt2")
        return task

    def inputs(self) -> dict[str, Column]:
        known = COLUMNS["messages" if self.form == "messages" else "prompt"]
        return {"text": Column("task.text", self.text, known, f"; task.form={self.form}")}

    @classmethod
    def recognised(cls, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str] | None:
        if "messages" in columns:
            return {"form": "messages"}
        return {} if "prompt" in columns and columns.keys() & {"completion", "response"} else None

    def targets(self) -> dict[str, Column]:
        column = Column("task.completion", self.completion, COLUMNS["completion"])
        return {"completion": column} if self.form == "completions" else {}

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
        return str(row.fields["completion"])

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
