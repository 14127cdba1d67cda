"""What the kinds of generation share: a text that is read, and a text that is written.

An encoder-decoder reads the one and writes the other; a decoder continues the one with the other.
"""

import abc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator

from ulmfit_style.config.section import Answering, Count
from ulmfit_style.tasks.base import IGNORED, Answer, Feature, Row, Task
from ulmfit_style.tasks.base_text import text_problem
from ulmfit_style.tasks.types import Batch, Generation, Label2id, Model, Module, Tensor, Tokenizer
from ulmfit_style.tasks.values import Architecture

SLOT = "{text}"
"""Where the text stands in a prompt."""

KEPT = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")
"""What stays of a checkpoint's own generation settings."""

LIKELIHOODS = ("nats", "tokens", "hits", "bytes")
"""What an answer has of how likely the right one is."""

TextScores = tuple[Mapping[str, float], Mapping[str, str]]
"""The scores of texts that were written, and how exactly they are computed: signatures by their names."""


class GenerationTask(Task, abc.ABC):
    """Rows of a text, and a text that is to be written of it."""

    writes: ClassVar[bool] = True
    metrics: ClassVar[str] = "generation"
    default_prompt: ClassVar[str]
    """The prompt of a decoder where the user gives none."""

    prompt: str | None = None
    """What the model reads, with {text} where the row's text stands: "summarize: {text}", as T5 was trained. null: the
    text alone where the model has an encoder; else a prompt of the task, from which the model goes on to the answer."""
    max_target_length: Count = 128
    """Tokens of a right answer, with the one that ends it. Longer ones are cut, and it is said how many."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    """The share of each token's probability that is spread over the whole vocabulary in the loss (Szegedy et al.
    2016)."""
    max_new_tokens: Annotated[Count | None, Answering] = None
    """Tokens that an answer has at most; null for those of `max_target_length`."""
    num_beams: Annotated[Count, Answering] = 1
    """Beginnings of an answer that are followed at once; 1: the likeliest token is taken each time."""
    no_repeat_ngram_size: Annotated[int, Field(ge=0), Answering] = 0
    """Tokens in a row that an answer may not hold twice; 0: it may."""
    temperature: Annotated[float, Field(ge=0), Answering] = 0
    """0: the likeliest answer. Above it tokens are drawn, at 1 by the probabilities that the model gives them; the
    higher, the more the unlikely ones."""
    seed: Annotated[int, Answering] = 0
    """Seed of what is drawn: the same rows in the same order are answered alike."""

    _causal: bool = PrivateAttr(default=False)
    """Whether the model is a decoder alone; `for_architecture` says so."""

    @field_validator("prompt")
    @classmethod
    def _has_a_slot(cls, prompt: str | None) -> str | None:
        if prompt is not None and prompt.count(SLOT) != 1:
            raise ValueError(f"should hold {SLOT} once, where the row's text is to stand")
        return prompt

    def auto_class(self, architecture: Architecture) -> str:
        return "AutoModelForCausalLM" if architecture.kind == "decoder" else "AutoModelForSeq2SeqLM"

    def for_architecture(self, architecture: Architecture) -> Self:
        task = self.model_copy()
        task._causal = architecture.kind == "decoder"
        return task

    def positions_needed(self, max_length: int) -> int:
        written = max(self.max_target_length, self.max_new_tokens or 0)
        return max_length + written if self._causal else max(max_length, written)

    @abc.abstractmethod
    def source(self, row: Row) -> str:
        """Return the text that is read; empty where there is none."""

    def row_problem(self, row: Row) -> str | None:
        problems = (text_problem(name, row.fields[name]) for name in (*self.inputs(), *self.targets()))
        return next(filter(None, problems), None)

    def texts(self, row: Row) -> list[str]:
        return [self.source(row)]

    def head(self, classes: Sequence[str]) -> dict[str, Any]:
        return {}

    def prepare_model(self, model: Model, tokenizer: Tokenizer, rows: Sequence[Row]) -> None:
        """Save the options with the model: transformers by itself writes the same answers."""
        model.generation_config = self.settings(model, tokenizer)

    def settings(self, model: Model, tokenizer: Tokenizer) -> Generation:
        """Return how the model writes: the options, and the special tokens of its checkpoint."""
        from transformers import GenerationConfig

        kept = {name: getattr(model.generation_config, name) for name in KEPT}
        kept = {name: getattr(model.config, name, None) if value is None else value for name, value in kept.items()}
        drawn = {"temperature": self.temperature, "top_k": 0} if self.temperature else {}
        return GenerationConfig(
            **kept,
            **drawn,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end_of(tokenizer),
            do_sample=self.temperature > 0,
            min_new_tokens=1,  # no right answer is empty
            max_new_tokens=self.max_new_tokens or self.max_target_length,
            num_beams=self.num_beams,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
        )

    def encode(self, row: Row, tokenizer: Tokenizer, max_length: int, label2id: Label2id | None) -> list[Feature]:
        ids, long, blanks = self.read(row, tokenizer, max_length)
        feature: Feature = {"input_ids": ids, "long": long}
        if label2id is not None:
            feature |= self._learnt(blanks + self.written(row, tokenizer), tokenizer, ids)
        return [{**feature, "attention_mask": [1] * len(feature["input_ids"])}]

    def read(self, row: Row, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], bool, str]:
        """Return the tokens that the model reads, whether the text is longer, and blanks that begin the answer.

        Blanks at the end of a prompt belong to the first word after it, as byte-level tokenizers have it. A text that
        is too long is cut at its end, and what the prompt has after it stays.
        """
        text, kept = self.prompted(row, tokenizer)
        if not self._causal:
            return *_cut(tokenizer, max_length, text=text + kept), ""
        prompt = kept.rstrip(" ")
        first = self.first_token(tokenizer)
        ids, room = ids_of(tokenizer, text + prompt), max_length - len(first)
        long = len(ids) > room
        if long:
            last = ids_of(tokenizer, prompt)
            ids = [*ids_of(tokenizer, text)[: max(0, room - len(last))], *last][-room:]
        return [*first, *ids] or [end_of(tokenizer)], long, kept[len(prompt) :]

    def prompted(self, row: Row, tokenizer: Tokenizer) -> tuple[str, str]:
        """Return what is read in two parts: a decoder reads the second whole, where the first has to be cut."""
        before, _, after = (self.prompt or (self.default_prompt if self._causal else SLOT)).partition(SLOT)
        return before + self.source(row), after

    def first_token(self, tokenizer: Tokenizer) -> list[int]:
        """Return the token that a decoder reads first: what its tokenizer puts before every text, if anything."""
        bos = tokenizer.bos_token_id
        return [bos] if bos in tokenizer("")["input_ids"][:1] else []

    def written(self, row: Row, tokenizer: Tokenizer) -> str:
        """Return the right answer as it is learnt."""
        return str(self.target(row))

    def _learnt(self, text: str, tokenizer: Tokenizer, read: list[int]) -> Feature:
        """Return the part of a feature that the right answer is, after the tokens that are read."""
        if self._causal:
            ids = ids_of(tokenizer, text)
            long = len(ids) >= self.max_target_length
            ids = [*ids[: self.max_target_length - 1], end_of(tokenizer)]
            feature: Feature = {"input_ids": read + ids, "labels": [IGNORED] * len(read) + ids}
        else:
            ids, long = _cut(tokenizer, self.max_target_length, text_target=text)
            feature = {"labels": ids}
        kept = str(tokenizer.decode(ids, skip_special_tokens=True)) if long else text
        return {**feature, "long_target": long, "bytes": len(kept.strip().encode())}

    def loss(self, model: Module, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        logits, labels, rows = self._logits(model, batch)
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return (losses * batch["weight"][rows]).sum() if "weight" in batch else losses.sum()

    def count(self, batch: Batch) -> Tensor:
        return (batch["labels"].ne(IGNORED).sum(dim=1) * batch.get("weight", 1)).sum()

    def likelihoods(self, model: Model, batch: Batch) -> list[dict[str, float]]:
        """Return of each feature the loss of its right answer in `nats`, its `tokens`, those that are `hits`, `bytes`.

        A hit is a token that is the likeliest after the right ones before it.
        """
        import torch
        from torch.nn.functional import cross_entropy

        logits, labels, rows = self._logits(model, batch)
        numbers = torch.stack([cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=-1).eq(labels)], 1)
        sums = torch.zeros(len(batch["labels"]), 2, device=logits.device).index_add(0, rows, numbers)
        (nats, hits), tokens = sums.T.tolist(), rows.bincount(minlength=len(sums)).tolist()
        of_rows = zip(nats, tokens, map(int, hits), batch["bytes"].tolist(), strict=True)
        return [dict(zip(LIKELIHOODS, of_row, strict=True)) for of_row in of_rows]

    def _logits(self, model: Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the tokens to learn, (tokens, vocabulary), these tokens, and the row of each."""
        from accelerate.utils import extract_model_from_parallel

        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        # A model with positions of its own, such as GPT-2, counts them from the first column.
        if self._causal:
            ids, mask, labels = _aside(mask, ids, labels, left=False)
            labels = labels.roll(-1, dims=1)  # the first token of a row, which comes last then, is never learnt
            learnt = labels.ne(IGNORED)
            with logits_at(model, learnt):
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        else:
            learnt = labels.ne(IGNORED)
            read = extract_model_from_parallel(model).prepare_decoder_input_ids_from_labels(labels=labels)
            logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=read, use_cache=False).logits[learnt]
        return logits.float(), labels[learnt], learnt.nonzero()[:, 0]

    def answer(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> list[Answer]:
        return self.answers_of(self.generated(model, tokenizer, batch), tokenizer)

    def answers_of(self, written: Tensor, tokenizer: Tokenizer) -> list[Answer]:
        """Return the answers that tokens (batch, written) spell."""
        return [{self.answer_field: text.strip()} for text in tokenizer.batch_decode(written, skip_special_tokens=True)]

    def generated(self, model: Model, tokenizer: Tokenizer, batch: Batch) -> Tensor:
        """Return the tokens that a model writes, (batch, written); an encoder-decoder's begin with its start token."""
        import torch

        ids, mask = batch["input_ids"], batch["attention_mask"]
        if self._causal:
            ids, mask = _aside(mask, ids, left=True)
        with torch.random.fork_rng(enabled=self.temperature > 0):
            if self.temperature:
                torch.manual_seed(self.seed)
            settings = self.settings(model, tokenizer)
            written = model.generate(ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
        return written[:, ids.shape[1] :] if self._causal else written

    def merge(self, row: Row, features: Sequence[Feature], outputs: Sequence[Any]) -> Answer:
        return outputs[0]

    def score(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        """Return the scores of the texts, and of the likelihoods of the right ones where the answers have them.

        `loss` is in nats a token, `perplexity` its exponential; `bits_per_byte` compares models of other tokenizers;
        `token_accuracy` is the share of the tokens that are the likeliest after the right ones before them.
        """
        scores = dict(self.text_scores(*self.sides(answers, targets))[0])
        if all("nats" in answer for answer in answers):
            nats, tokens, hits, size = (sum(answer[name] for answer in answers) for name in LIKELIHOODS)
            scores |= {"loss": nats / tokens, "perplexity": math.exp(nats / tokens)}
            scores |= {"bits_per_byte": nats / math.log(2) / size, "token_accuracy": hits / tokens}
        return scores

    def text_scores(self, written: Sequence[str], targets: Sequence[str]) -> TextScores:
        """Return the scores of texts that were written, and how they are computed; by default ROUGE."""
        scores = {name: sum(values) / len(values) for name, values in self.scoring.rouge(written, targets).items()}
        return scores, {"rouge": self.scoring.ROUGE_SIGNATURE}

    def measure(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, Any]:
        return {**super().measure(answers, targets), "signatures": self.text_scores(["-"], ["-"])[1]}


@contextmanager
def logits_at(model: Module, positions: Tensor) -> Iterator[None]:
    """Let a language model compute logits at the chosen positions only: (chosen, vocabulary).

    The vocabulary is by far the widest layer of a small model; masked language modelling needs one position in seven,
    and padding needs none. The head works on each position by itself, so that the logits are those of the whole head.
    `positions` is (batch, length), boolean.
    """
    import torch
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(model, keep_torch_compile=False)

    def select(module: Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        whole = isinstance(args[0], torch.Tensor) and args[0].shape[:2] == positions.shape and args[0].dim() == 3
        return (args[0][positions], *args[1:]) if whole else None

    with ExitStack() as hooks:
        for child in inner.children():
            if child is not inner.base_model:
                hooks.enter_context(child.register_forward_pre_hook(select))
        yield


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text, without special ones around it."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def end_of(tokenizer: Tokenizer) -> int:
    """Return the token that ends every text; BERT's tokenizers separate texts instead."""
    return int(tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id)


def _cut(tokenizer: Tokenizer, room: int, **text: str) -> tuple[list[int], bool]:
    """Return the tokens of a text with special ones, cut at its end where there is no room, and whether it was cut."""
    ids: list[int] = tokenizer(**text, verbose=False)["input_ids"]
    if len(ids) <= room:
        return ids, False
    return tokenizer(**text, truncation=True, max_length=room)["input_ids"], True


def _aside(mask: Tensor, *tensors: Tensor, left: bool) -> list[Tensor]:
    """Return tensors (batch, length) with their padding on one side, and the mask after the first of them."""
    order = mask.argsort(dim=1, descending=not left, stable=True)
    first, *others = (tensor.gather(1, order) for tensor in tensors)
    return [first, mask.gather(1, order), *others]
