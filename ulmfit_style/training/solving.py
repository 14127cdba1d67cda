"""A head that is solved: by a regression of the right answers on what it reads, in place of gradient steps.

It is linear probing (Kumar et al. 2022), and after a contrastive phase the classifier of SetFit (Tunstall et al. 2022).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.tasks.text_classification import logistic_regression
from ulmfit_style.training.phases import TrainingData

AFTER_CONTRAST = 0.5
"""C times the texts of a class after a contrast, of whose rows folds would be too sure to choose it."""

WEAK = 0.05
"""The same before all weights are trained: a head that fits its rows leaves the body nothing to learn."""

MOST = 20_000
"""Texts that a head is solved from at most: as many, evenly spread, where there are more."""

COSINE_TEMPERATURE = 0.1
"""What the cosine of a text and an example of a class is divided by, to be a logit."""

LEAST_SPREAD = 0.1
"""The standard deviation that a dimension is taken to have at least, in medians of all. Three of MiniLM's have 1e-33:
they would get weights of 1e29, and training on from there would follow these three alone."""

MISSING = -20.0
"""The logit of a class without a text."""

Floats = np.ndarray[Any, np.dtype[np.float32]]


class HeadInputs(NamedTuple):
    """What the last layer of a head reads of each text, and the number of its class."""

    inputs: Floats
    """(texts, width)"""
    labels: np.ndarray[Any, np.dtype[np.int64]]
    """(texts,)"""
    weights: Floats
    """(texts,)"""


def output_layer(model: Any) -> nn.Linear:
    """Return the layer of a pooled head whose outputs are the logits."""
    return model.head[-1]


@contextmanager
def read_by_head(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the last layer of the head reads while the block runs the model: (batch, width) of each batch."""
    read: list[torch.Tensor] = []
    with output_layer(model).register_forward_pre_hook(lambda _, arguments: read.append(arguments[0].float().cpu())):
        yield read


def head_inputs(model: PreTrainedModel, data: TrainingData) -> HeadInputs:
    """Run the body once over the rows, without dropout, and return what the last layer of the head reads."""
    order = data.by_length
    if len(order) > MOST:
        say(f"  what the head reads is taken of {MOST:,} of {len(order):,} texts")
        order = [order[place] for place in np.linspace(0, len(order) - 1, MOST).astype(int)]
    with read_by_head(model) as read:
        data.run(model, order)
    rows = [data.rows[row] for row in sorted(order)]
    labels, weights = (np.array([row[name] for row in rows]) for name in ("labels", "weight"))
    return HeadInputs(torch.cat(read).numpy()[np.argsort(order)], labels, weights.astype(np.float32))


@torch.no_grad()
def solve(model: PreTrainedModel, data: TrainingData, fit: Callable[[HeadInputs, int], tuple[Floats, Floats]]) -> None:
    """Solve the head of a model, once, and give it to all processes.

    Args:
        fit: Makes its weights (outputs, width) and bias (outputs,) of what it reads, and the number of its outputs.
    """
    output, solved = output_layer(model), None
    if processes.is_main():
        solved = fit(head_inputs(model, data), output.out_features)
    weights, bias = processes.from_main(solved)  # type: ignore[misc]
    output.weight.copy_(torch.from_numpy(weights))
    output.bias.copy_(torch.from_numpy(bias))


def nearest_example(examples: HeadInputs, outputs: int) -> tuple[Floats, Floats]:
    """Return the weights that choose the class whose one example is nearest, by the cosine of what the head reads.

    A regression would standardise by so few examples, and follow the units in which they hardly differ.
    """
    lengths = np.linalg.norm(examples.inputs, axis=1, keepdims=True)
    rows = examples.inputs / lengths / lengths.mean() / COSINE_TEMPERATURE
    return rows[np.argsort(examples.labels)], np.zeros(outputs, np.float32)


def regression(texts: HeadInputs, outputs: int, penalty: float | None) -> tuple[Floats, Floats]:
    """Return the weights of multinomial logistic regression.

    The inputs are standardised, so that a penalty means the same for every body.

    Args:
        penalty: C of the regression times the texts of a class, on average; None to choose C by cross-validation, which
            is right where the labels did not form what the head reads.
    """
    from sklearn.linear_model import LogisticRegression

    scaler = standard_scaler(texts.inputs)
    inputs, classes = scaler.transform(texts.inputs), np.unique(texts.labels)
    if penalty is None:
        model = logistic_regression(inputs, texts.labels.tolist(), texts.weights)
    else:
        model = LogisticRegression(C=penalty * len(classes) / len(inputs), max_iter=1000)
        model.fit(inputs, texts.labels, sample_weight=texts.weights)
    weights, bias = np.zeros((outputs, inputs.shape[1])), np.full(outputs, MISSING)
    is_pair = len(classes) == 2  # of which scikit-learn has the difference alone
    weights[classes] = (np.concatenate([-model.coef_, model.coef_]) / 2 if is_pair else model.coef_) / scaler.scale_
    bias[classes] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if is_pair else model.intercept_
    return weights.astype(np.float32), (bias - weights @ scaler.mean_).astype(np.float32)


def standard_scaler(inputs: Floats) -> Any:
    """Return scikit-learn's scaler of what a head reads, (texts, width), which blows no dead dimension up."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(inputs)
    scaler.scale_ = np.maximum(scaler.scale_, LEAST_SPREAD * np.median(scaler.scale_))
    return scaler


@torch.inference_mode()
def logits(model: PreTrainedModel, inputs: Floats) -> Floats:
    """Return the logits (texts, outputs) of what the head reads, (texts, width)."""
    output = output_layer(model)
    return output(torch.from_numpy(inputs).to(output.weight.device)).float().cpu().numpy()


def temperature(logits: Floats, labels: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Return what logits have to be divided by to give the right classes the highest likelihood (Guo et al. 2017).

    Args:
        logits: (texts, classes), of models that were not trained on them.
        labels: (texts,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        return -float(log_softmax(logits / np.exp(logarithm), axis=1)[rows, labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))


@torch.no_grad()
def cool(model: PreTrainedModel, by: float) -> None:
    """Divide the logits of a model by a temperature: it is put into the weights, so that every library reads it."""
    for parameter in output_layer(model).parameters():
        parameter.div_(by)
