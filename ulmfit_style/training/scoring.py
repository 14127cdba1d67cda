"""How a model answers rows, and how it is scored on them: what training, evaluation and prediction share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, tee
from typing import Any, Self, final

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ulmfit_style.artefacts import predictions
from ulmfit_style.compute import processes
from ulmfit_style.console import progress, say
from ulmfit_style.data.disk_list import DiskList
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models.architectures import architecture
from ulmfit_style.tasks.base import Answer, Feature, Row, Task
from ulmfit_style.training.batching import EncodedDataset, collate, passes, run_over
from ulmfit_style.training.solving import Floats, read_by_head

WINDOW = 2048
"""Rows that are in memory at once, and within which features are sorted by length."""

UNITS = "learnt.npy"
"""The `units` of the texts that a model was trained on, in its directory.

Texts that belong to no class are told by how near what the head reads of them is to that of any of these, by the cosine
with the nearest one (Sun et al. 2022): of twelve scores it told them best over several kinds of data and of training
(docs/measured.md).
"""

UNLIKE = 0.05
"""The share of the rows that were not trained on that counts as unlike those that were."""

Forward = Callable[[dict[str, torch.Tensor]], list[Any]]
"""Returns the output for each feature of a batch."""

Advance = Callable[[int, int], None]
"""Called after each batch with the number of further rows, and how many of them are longer than `max_length`."""

Outputs = tuple[Row, Sequence[Feature], list[Any]]
"""A row, the features that were made of it, and the output for each."""


def ignore(rows: int, long: int) -> None:
    """Report no progress."""


@final
@dataclass(frozen=True)
class Scorer:
    """A model with its tokenizer and task, which answers rows and is scored on them.

    `answers` and `likelihoods` work on the rows of this process. `outputs`, `metric` and `score` share the rows among
    all processes, and return the whole result in each: every process has to call them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    max_length: int
    """Tokens per feature."""
    learnt: Floats | None = None
    """The `units` of the training texts, if answers are to tell how `near` a text is to these."""
    others: Sequence[Self] = ()
    """Those whose outputs are averaged with its own, each by a model, a tokenizer and a length of its own."""

    def answers(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[Answer]:
        """Yield the answer to each row, in order."""
        task = self._task()
        own, *copies = tee(rows, 1 + len(self.others))  # they hold as many rows as the fastest model is ahead
        others = [other._read(copy, ignore) for other, copy in zip(self.others, copies, strict=True)]
        for (row, features, outputs), *theirs in zip(self._read(own, advance), *others, strict=True):
            if theirs:  # each of which may have read another number of windows
                of_models = [outputs, *(their_outputs for _, _, their_outputs in theirs)]
                yield task.merge(row, (), list(map(task.mean, of_models)))
            elif self.learnt is None:
                yield task.merge(row, features, outputs)
            else:
                answers, near = zip(*outputs, strict=True)
                yield {**task.merge(row, features, answers), "near": max(near)}

    def _read(self, rows: Iterable[Row], advance: Advance) -> Iterator[Outputs]:
        """Yield each row with its features, and what the model itself makes of each."""
        answer = partial(self._task().answer, self.model, self.tokenizer)
        if self.learnt is not None:
            answer = partial(beside_nearness, answer, self.model, self.learnt)
        return self._forward(rows, None, answer, advance)

    def likelihoods(self, rows: Iterable[Row], advance: Advance = ignore) -> Iterator[dict[str, float]]:
        """Yield `Task.likelihoods` of the right answer to each row."""
        label2id, likelihoods = self.model.config.label2id, partial(self._task().likelihoods, self.model)
        for _, _, (of_row,) in self._forward(rows, label2id, likelihoods, advance):
            yield of_row

    def outputs(self, rows: Sequence[Row], advance: Advance = ignore) -> Sequence[Answer]:
        """Return the answer to each row, with the likelihood of the right one where the model writes."""
        share = processes.share(rows)
        outputs = self.answers(share, advance)
        if self.task.writes:
            pairs = zip(outputs, self.likelihoods(share, advance), strict=True)
            outputs = ({**answer, **likelihood} for answer, likelihood in pairs)
        answers = DiskList(outputs)
        return answers if processes.count() == 1 else processes.joined(answers)

    def metric(self, rows: Sequence[Row], name: str | None = None) -> float:
        """Return one score; `name` is None for the task's own metric."""
        return self.task.score(self.outputs(rows), list(map(self.task.target, rows)))[name or self.task.metric]

    def score(self, rows: Sequence[Row], split: str) -> tuple[dict[str, Any], Sequence[predictions.Prediction]]:
        """Return the metrics of a split, as metrics.json has them, and the prediction for each row."""
        long = 0

        def advance(rows: int, long_rows: int) -> None:
            nonlocal long
            long += long_rows
            steps.advance(rows)

        kinds, scorer = 1 + self.task.writes, replace(self, task=self.task.for_scoring())
        with progress(f"scoring {split}", len(processes.share(rows)) * kinds) as steps:
            outputs = scorer.outputs(rows, advance)
        if long := sum(processes.from_all(long)) // kinds:
            treatment = f"longer than {self.max_length} tokens, and were {self.task.long_texts}"
            say(f"  {split}: {long:,} of {len(rows):,} rows are {treatment}")
        metrics = self.task.measure(outputs, list(map(self.task.target, rows)))
        return metrics, DiskList(predictions.of(split, self.task, rows, outputs))

    def _task(self) -> Task:
        body: Any = getattr(self.model.config, "body", self.model.config)
        return self.task.for_architecture(architecture(body.model_type))

    @torch.inference_mode()
    def _forward(self, rows: Iterable[Row], label2id: Any, forward: Forward, advance: Advance) -> Iterator[Outputs]:
        """Yield each row with its features and the output for each, computed in batches of features of like length."""
        self.model.eval()
        iterator = iter(rows)
        while window := list(islice(iterator, WINDOW)):
            encoded = [self._task().encode(row, self.tokenizer, self.max_length, label2id) for row in window]
            outputs: list[list[Any]] = [[None] * len(features) for features in encoded]
            places = [(row, number) for row, features in enumerate(encoded) for number in range(len(features))]
            lengths = {place: len(encoded[place[0]][place[1]]["input_ids"]) for place in places}
            places.sort(key=lengths.__getitem__)
            for some in passes(sorted(lengths.values()), self.model.device, writes=self.task.writes):
                batch = places[some]
                features = [encoded[row][number] for row, number in batch]
                tensors = collate(features, self.tokenizer)
                tensors = {name: tensor.to(self.model.device) for name, tensor in tensors.items()}
                check = partial(require_logits, [window[row].place for row in sorted({row for row, _ in batch})])
                with self.model.register_forward_hook(check):
                    computed = forward(tensors)
                for (row, number), output in zip(batch, computed, strict=True):
                    outputs[row][number] = output
                first = [feature for feature, (_, number) in zip(features, batch, strict=True) if number == 0]
                advance(len(first), sum(feature["long"] for feature in first))
            yield from zip(window, encoded, outputs, strict=True)


def mean_features(body: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, texts: Sequence[str]) -> Any:
    """Return the last hidden states of a body, averaged over each text's tokens: (texts, hidden)."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    rows = EncodedDataset({"input_ids": ids} for ids in encoded)
    order = np.argsort(rows.lengths, kind="stable").tolist()
    features = np.zeros((len(texts), body.config.hidden_size), dtype=np.float32)

    def average(numbers: Sequence[int], batch: Any) -> None:
        hidden, mask = body(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        features[numbers] = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()

    run_over(rows, order, body, partial(collate, tokenizer=tokenizer), average, "features")
    return features


def units(inputs: Any) -> torch.Tensor:
    """Return what the head reads of texts, (texts, width), at length 1."""
    return torch.nn.functional.normalize(torch.as_tensor(inputs))


def beside_nearness(answer: Callable[[Any], list[Any]], model: Any, learnt: Floats, batch: Any) -> list[Any]:
    """Return what `answer` makes of each text of a batch, with the cosine with the nearest text that was learnt.

    Args:
        learnt: The `units` of these.
    """
    with read_by_head(model) as read:
        answers = answer(batch)
    # Not by numpy, whose threads would wait for its next product on the cores of torch's.
    return list(zip(answers, (units(read[0]) @ torch.from_numpy(learnt).T).amax(1).tolist(), strict=True))


def require_logits(places: Sequence[str], model: Any, inputs: Any, output: Any) -> None:
    """Check the logits that a model returned for rows: a forward hook, once it has the places of the rows.

    Raises:
        UserError: naming the rows, if some are not a number or infinite; minus infinity rules an answer out.
    """
    for name in [name for name in output if "logits" in name]:
        if not (output[name] < np.inf).all():  # nor is NaN
            raise UserError(f"the model's {name} are not finite on {listed(places)}; look at the rows and its weights")
