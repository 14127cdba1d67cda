"""A head that is solved: by a regression of the right answers on what it reads, in place of gradient steps.

It is linear probing (Kumar et al. 2022), and after a contrastive phase the classifier of SetFit (Tunstall et al. 2022).
"""

import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.tasks.base import IGNORED, inputs_of
from ulmfit_style.training.phases import TrainingData

PENALTIES = [1e-4, 1e-3, 1e-2, 1e-1, 1]
"""What cross-validation chooses from: scikit-learn's C, for inputs of unit variance."""

AFTER_CONTRAST = 0.5
"""C times the examples of a class after a contrast, of whose rows folds would be too sure to choose it."""

WEAK = 0.05
"""The same before all weights are trained: a head that fits its rows leaves the body nothing to learn."""

FOLDS = 5
"""Parts of the rows by which it chooses; fewer where no class has so many."""

MOST = 20_000
"""Examples that a head is solved from at most: every so many-th, where there are more."""

BATCH = 64

MISSING = -20.0
"""The logit of a class without an example."""


Floats = np.ndarray[Any, np.dtype[np.float32]]


class HeadInputs(NamedTuple):
    """What the last layer of a head reads of each example, a text or a labelled token, and the right answer."""

    inputs: Floats
    """(examples, width)"""
    labels: Floats
    """(examples,), or (examples, labels) where an example has several."""
    weights: Floats
    """(examples,)"""


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """Return the layer of a head whose outputs are the logits."""
    outputs = model.config.num_labels
    (*_, layer) = (
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == outputs
    )
    return layer


@torch.inference_mode()
def head_inputs(model: PreTrainedModel, data: TrainingData) -> HeadInputs:
    """Run the body once over the rows, without dropout, and return what the last layer of the head reads."""
    model.eval()
    read: list[torch.Tensor] = []
    places = np.argsort(data.rows.lengths, kind="stable")
    parts: list[tuple[Any, ...]] = []
    hook = output_layer(model).register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    try:
        for start in range(0, len(places), BATCH):
            rows = [data.rows[int(place)] for place in places[start : start + BATCH]]
            batch = {name: tensor.to(model.device) for name, tensor in data.collate(rows).items()}
            model(**inputs_of(batch))
            inputs, labels, weights = read.pop(), batch["labels"], batch["weight"].float()
            if inputs.dim() == 3 and labels.dim() == 2 and labels.shape == inputs.shape[:2]:  # of every token
                learnt = labels.ne(IGNORED)
                inputs, labels, weights = inputs[learnt], labels[learnt], weights[:, None].expand_as(learnt)[learnt]
            elif inputs.dim() == 3:  # a decoder's, which answers by the last token of a text
                tokens = torch.arange(inputs.shape[1], device=inputs.device) * batch["attention_mask"]
                inputs = inputs[torch.arange(len(inputs), device=inputs.device), tokens.argmax(1)]
            parts.append(tuple(tensor.float().cpu().numpy() for tensor in (inputs, labels, weights)))
    finally:
        hook.remove()
    return HeadInputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def solve(model: PreTrainedModel, data: TrainingData, penalty: float | None) -> None:
    """Solve the head of a model, once, and give it to all processes.

    Args:
        penalty: C of the regression times the examples of a class, on average; None to choose C by cross-validation,
            which is right where the labels did not form what the head reads.
    """
    output = output_layer(model)
    solved = None
    if processes.is_main():
        examples = head_inputs(model, data)
        if len(examples.inputs) > MOST:
            say(f"  the head is solved from {MOST:,} of {len(examples.inputs):,} examples")
            chosen = np.linspace(0, len(examples.inputs) - 1, MOST).astype(int)
            examples = HeadInputs(*(array[chosen] for array in examples))
        solved = regression(examples, output.out_features, penalty, has_bias=output.bias is not None)
    weights, bias = processes.from_main(solved)  # type: ignore[misc]
    with torch.no_grad():
        output.weight.copy_(torch.from_numpy(weights))
        if output.bias is not None:
            output.bias.copy_(torch.from_numpy(bias))


def regression(examples: HeadInputs, outputs: int, penalty: float | None, *, has_bias: bool) -> tuple[Floats, Floats]:
    """Return the weights (outputs, width) and the bias (outputs,) of a linear or logistic regression.

    The inputs are standardised, so that a penalty means the same for every body.
    """
    inputs, labels, weights = examples
    mean = inputs.mean(0) if has_bias else np.zeros(inputs.shape[1], inputs.dtype)
    deviation = inputs.std(0) + 1e-6
    standardised = (inputs - mean) / deviation
    if labels.ndim == 2:
        columns = [_logistic(standardised, labels[:, place], weights, 2, penalty, has_bias) for place in range(outputs)]
        coefficients, bias = (np.stack([column[part][1] - column[part][0] for column in columns]) for part in (0, 1))
    elif outputs == 1:
        coefficients, bias = _linear(standardised, labels, weights, has_bias)
    else:
        coefficients, bias = _logistic(standardised, labels, weights, outputs, penalty, has_bias)
    coefficients = coefficients / deviation
    return coefficients.astype(np.float32), (bias - coefficients @ mean).astype(np.float32)


def _linear(inputs: Floats, numbers: Floats, weights: Floats, has_bias: bool) -> tuple[Floats, Floats]:
    """Return the coefficients (1, width) and the bias (1,) of ridge regression, its penalty chosen."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV([1 / penalty for penalty in PENALTIES], fit_intercept=has_bias).fit(inputs, numbers, weights)
    return model.coef_[None], np.atleast_1d(model.intercept_)


def _logistic(
    inputs: Floats, labels: Floats, weights: Floats, outputs: int, penalty: float | None, has_bias: bool
) -> tuple[Floats, Floats]:
    """Return the coefficients (outputs, width) and the bias (outputs,) of multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    coefficients, bias = np.zeros((outputs, inputs.shape[1])), np.full(outputs, MISSING)
    counts = Counter(labels.astype(int).tolist())
    if len(counts) < 2:
        bias[list(counts)] = 0
        return coefficients, bias
    share = len(labels) / len(counts)
    model = LogisticRegression(
        C=PENALTIES[-1] if penalty is None else penalty / share, max_iter=1000, fit_intercept=has_bias
    )
    folds = min(FOLDS, max(counts.values()))
    if penalty is None and folds > 1:
        model = GridSearchCV(model, {"C": PENALTIES}, cv=folds, scoring="neg_log_loss")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The (least populated class|number of unique classes)", UserWarning)
        model.fit(inputs, labels.astype(int), sample_weight=weights)
    model = getattr(model, "best_estimator_", model)
    found = np.concatenate([-model.coef_, model.coef_]) / 2 if len(counts) == 2 else model.coef_
    constants = np.concatenate([-model.intercept_, model.intercept_]) / 2 if len(counts) == 2 else model.intercept_
    coefficients[model.classes_], bias[model.classes_] = found, constants
    return coefficients, bias


def logits(model: PreTrainedModel, inputs: Floats) -> Floats:
    """Return the logits (examples, outputs) of what the head reads, (examples, width)."""
    output = output_layer(model)
    with torch.inference_mode():
        result: Floats = output(torch.from_numpy(inputs).to(output.weight.device)).float().cpu().numpy()
    return result


def temperature(logits: Floats, labels: Floats) -> float:
    """Return what logits have to be divided by to give the right classes the highest likelihood (Guo et al. 2017).

    Args:
        logits: (examples, classes), of a model that was not trained on them.
        labels: (examples,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows, right = np.arange(len(labels)), labels.astype(int)

    def loss(logarithm: float) -> float:
        return -float(log_softmax(logits / np.exp(logarithm), axis=1)[rows, right].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def cool(model: PreTrainedModel, by: float) -> None:
    """Divide the logits of a model by a temperature: it is put into the weights, so that every library reads it."""
    output = output_layer(model)
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.div_(by)
