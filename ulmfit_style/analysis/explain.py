"""Which tokens an answer rests on: integrated gradients (Sundararajan et al. 2017, section 3), by Captum.

The attributions of a text's tokens add up to the difference between the model's logit of the text and that of a text of
padding. What is explained is a logit, before the softmax: a probability near 1 hardly changes any more.
"""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from ulmfit_style.errors import UserError
from ulmfit_style.results.html import coloured
from ulmfit_style.tasks.base import Answer, Feature, Row, Task
from ulmfit_style.tasks.interface import ExplainedPart

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 50
"""Points between padding and the text at which the gradient is taken; Sundararajan et al. found 20 to 300 enough."""

AT_ONCE = 25
"""Points of a forward pass."""

EXPLANATIONS = "explanations"
"""Where an answer has them."""

Explanation = dict[str, Any]
"""What explains a part of an answer, as JSON values."""


def check(task: Task, option: str = "predict.explain=true") -> None:
    """Check that a task's answers can be explained, and that Captum is there.

    Raises:
        UserError: if not.
    """
    if type(task).explained_parts is Task.explained_parts:
        raise UserError(f"{option}: an answer to {type(task).__name__} cannot be explained")
    if importlib.util.find_spec("captum") is None:
        raise UserError(f"{option}: needs Captum; install it: pip install captum")


def explanations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    row: Row,
    answer: Answer,
    max_length: int,
) -> list[Explanation]:
    """Explain each part of an answer that can be.

    Args:
        answer: The model's own to the row.
        max_length: Tokens per feature.
    """
    features = task.encode(row, tokenizer, max_length, None)
    names: Mapping[Any, str] = model.config.id2label or {}
    parts = task.explained_parts(row, features, answer, names)
    return [_explain(model, tokenizer, task.texts(row), features[part.feature], part) for part in parts]


def _explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    feature: Feature,
    part: ExplainedPart,
) -> Explanation:
    import torch
    from captum.attr import LayerIntegratedGradients

    names = [name for name in tokenizer.model_input_names if name in feature and name != "input_ids"]
    ids, *others = (torch.tensor([feature[name]], device=model.device) for name in ("input_ids", *names))
    # Special tokens stay: the model has never seen an input without them.
    special = torch.tensor([[number is None for number in feature["texts"]]], device=model.device)
    blank = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    padding = torch.where(special, ids, torch.full_like(ids, blank))

    def logit(ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(names, others, strict=True))
        return part.read(model(input_ids=ids, **inputs).logits.float())

    method = LayerIntegratedGradients(logit, model.get_input_embeddings())
    attributions = method.attribute(
        ids, padding, additional_forward_args=tuple(others), n_steps=STEPS, internal_batch_size=AT_ONCE
    )
    model.zero_grad(set_to_none=True)
    scores = attributions.sum(dim=-1)[0].tolist()
    with torch.inference_mode():
        of_text, of_padding = (logit(inputs, *others).item() for inputs in (ids, padding))
    tokens = [
        {"text": number, "start": start, "end": end, "token": texts[number][start:end], "score": round(score, 6)}
        for score, number, (start, end) in zip(scores, feature["texts"], feature["offsets"], strict=True)
        if number is not None and start < end
    ]
    return {
        "of": part.name,
        "logit": round(of_text, 6),
        "of_padding": round(of_padding, 6),
        "error": round(sum(scores) - (of_text - of_padding), 6),
        "tokens": tokens,
    }


@dataclass(frozen=True)
class Page:
    """An HTML page that shows what answers rest on, written as they come; it opens from the disk."""

    file: IO[str]

    def begin(self, model: str) -> None:
        """Write what stands above the answers."""
        self.file.write(HEAD.format(model=html.escape(model)))

    def write(self, row: Row, task: Task, answer: Answer) -> None:
        """Write an answer: each text, with its tokens coloured by how much they speak for the answer or against it."""
        texts = task.texts(row)
        self.file.write(f"<section><h2>{html.escape(row.place)}</h2>\n")
        if not answer[EXPLANATIONS]:
            self.file.write(f"<p>{html.escape(' / '.join(texts))}</p><p>Nothing was answered.</p>\n")
        for explanation in answer[EXPLANATIONS]:
            logits = f"logit {explanation['logit']:.2f}; of padding {explanation['of_padding']:.2f}"
            self.file.write(f"<h3>{html.escape(explanation['of'])} <small>{logits}</small></h3>\n")
            self.file.writelines(f"<p>{text}</p>\n" for text in coloured(texts, explanation["tokens"]))
        self.file.write("</section>\n")


HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What answers rest on</title>
<style>
body {{font: 16px/1.6 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222}}
h1 {{font-size: 1.4rem}} h2 {{font-size: .8rem; color: #777; font-weight: normal; margin: 0}}
h3 {{font-size: 1rem; margin: .3rem 0}} small {{color: #777; font-weight: normal}}
section {{border-top: 1px solid #ddd; padding: .8rem 0}} p {{margin: .2rem 0}}
span {{border-radius: 3px}} .for {{background: rgba(0,128,96,.5)}} .against {{background: rgba(200,40,40,.5)}}
</style>
<h1>What answers rest on</h1>
<p>Model: {model}. <span class="for">Green</span> tokens raised the logit of the answer, and
<span class="against">red</span> ones lowered it; the strongest has the fullest colour, and each tells its share when
pointed at. Integrated gradients from a text of padding (Sundararajan et al. 2017).</p>
"""
