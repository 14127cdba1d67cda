"""Which tokens an answer rests on: integrated gradients (Sundararajan et al. 2017, section 3), by Captum.

The attributions of a text's tokens add up to the difference between the model's logit of the text and that of a text of
padding. What is explained is a logit, before the softmax: a probability near 1 hardly changes any more.

Of a text that is written it is told which tokens of the text that was read the model looked at for each: its attention.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ulmfit_style.errors import UserError, require_packages
from ulmfit_style.models.architectures import architecture
from ulmfit_style.models.tokenizer_pair import TokenizerPair
from ulmfit_style.tasks.base import Answer, Feature, Task
from ulmfit_style.tasks.base_generation import GenerationTask
from ulmfit_style.tasks.types import Model, Tokenizer
from ulmfit_style.tasks.values import ExplainedPart

STEPS = 50
"""Points between padding and the text at which the gradient is taken; Sundararajan et al. found 20 to 300 enough."""

STEPS_PER_PASS = 25
"""Points of a forward pass."""


def check(task: Task, config: Mapping[str, Any]) -> None:
    """Check that a model's answers can be explained, and that Captum is installed where it explains them.

    Args:
        config: What the config of the model says, or of an encoder that is to get a decoder.

    Raises:
        UserError: if not.
    """
    if isinstance(task, GenerationTask):
        if architecture(config["model_type"]).kind == "decoder" or not config.get("attention", True):
            problem = "draws the cross-attention from what is written to what was read, and this model has none"
            remedy = "take an encoder-decoder that has, such as model=rnn_attention or model=t5_small"
            raise UserError(f"predict.explain=true: {problem}; {remedy}")
        return
    if not task.is_explained:
        raise UserError(f"predict.explain=true: answers of {type(task).__name__} cannot be explained")
    require_packages("predict.explain=true", "captum")


def explain(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], feature: Feature, part: ExplainedPart
) -> dict[str, Any]:
    """Explain a part of the model's answer to the texts of a row, as JSON values.

    Args:
        feature: The one that the part is read from.
    """
    import torch
    from captum.attr import LayerIntegratedGradients

    names = [name for name in tokenizer.model_input_names if name in feature and name != "input_ids"]
    ids, *others = (torch.tensor([feature[name]], device=model.device) for name in ("input_ids", *names))
    # Special tokens stay: the model has never seen an input without them.
    is_special = torch.tensor([[number is None for number in feature["texts"]]], device=model.device)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    padding = torch.where(is_special, ids, torch.full_like(ids, pad))

    def logit(ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return part.read(model(input_ids=ids, **dict(zip(names, others, strict=True))).logits.float())

    method = LayerIntegratedGradients(logit, model.get_input_embeddings())
    window = getattr(model.config, "window", None) or ids.shape[1]  # each of which is a text to Captum
    steps = {"n_steps": STEPS, "internal_batch_size": max(STEPS_PER_PASS, -(-ids.shape[1] // window))}
    attributions = method.attribute(ids, padding, additional_forward_args=tuple(others), **steps)
    model.zero_grad(set_to_none=True)
    scores = attributions.sum(dim=-1).flatten()  # of a text that is read in windows one after the other
    with torch.inference_mode():
        of_text, of_padding = (logit(inputs, *others).item() for inputs in (ids, padding))
    tokens = [
        {"text": number, "start": start, "end": end, "token": texts[number][start:end], "score": round(score, 6)}
        for score, number, (start, end) in zip(scores.tolist(), feature["texts"], feature["offsets"], strict=True)
        if number is not None and start < end
    ]
    numbers = {"logit": of_text, "of_padding": of_padding, "error": scores.sum().item() - (of_text - of_padding)}
    told = {"of": part.name, **{name: round(number, 6) for name, number in numbers.items()}, "tokens": tokens}
    if len(attributions) > 1:  # it is told which of the windows did the most
        most = int(attributions.sum(dim=(1, 2)).argmax())
        places = [place for place in feature["offsets"][most * window : (most + 1) * window] if any(place)]
        told["window"] = (places[0][0], places[-1][1])
    return told


def aligned(model: Model, tokenizer: Tokenizer, task: GenerationTask, feature: Feature) -> Answer:
    """Return what an encoder-decoder writes of what it reads, and at which tokens of it it looked for each of its own.

    The explanation has the tokens that were `read` and those that were `written`, special ones too, and the `weights`
    of the attention, (written, read), by which each token was chosen: their mean over all heads of all layers, so that
    those of a token sum to 1.
    """
    import torch

    ids = torch.tensor([feature["input_ids"]], device=model.device)
    batch, kernel = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, model.config._attn_implementation
    with torch.inference_mode():
        written = task.generated(model, tokenizer, batch)
        model.set_attn_implementation("eager")  # others return no weights
        outputs = model(**batch, decoder_input_ids=written[:, :-1], output_attentions=True, use_cache=False)
        model.set_attn_implementation(kernel)
    weights = torch.stack([layer[0].mean(dim=0) for layer in outputs.cross_attentions]).mean(dim=0)
    source, target = (tokenizer.source, tokenizer.target) if isinstance(tokenizer, TokenizerPair) else [tokenizer] * 2
    tokens = {"read": _spelled(source, feature["input_ids"]), "written": _spelled(target, written[0, 1:].tolist())}
    explanation = {**tokens, "weights": weights.double().round(decimals=4).tolist()}
    return {**task.answers_of(written, tokenizer)[0], "explanations": [explanation]}


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return what each token stands for: of the tokens of one character the last for it, and the others for nothing."""
    texts, held = list[str](), list[int]()
    for number in ids:
        text = str(tokenizer.decode([*held, number]))
        held = [*held, number] if text.endswith("\ufffd") else []
        texts.append("" if held else text)
    return texts
