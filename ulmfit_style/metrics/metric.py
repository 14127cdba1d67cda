"""What the metrics are: modules of `evaluate` that need no network."""

from collections.abc import Callable, Sequence
from functools import wraps
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Features, Value

TEXT = Value("string")

Scores = Callable[[Any, Any], dict[str, float]]
"""Makes scores, by their names, of predictions and references."""


def metric(*forms: tuple[Any, Any]) -> Callable[[Callable[[Any, Any], dict[str, Any]]], Scores]:
    """Make a metric of a function, which is called as before: `evaluate` checks what it is given.

    Nothing is written to the user's home, where `evaluate` makes a folder for each metric.

    Args:
        forms: The types that a prediction and its reference may have.
    """

    def made(function: Callable[[Any, Any], dict[str, Any]]) -> Scores:
        @wraps(function)
        def scores(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
            import evaluate  # it imports torch, which the points of rows do without

            class Metric(evaluate.Metric):
                def _info(self) -> evaluate.MetricInfo:
                    features = [Features({"predictions": ours, "references": right}) for ours, right in forms]
                    return evaluate.MetricInfo(description=function.__doc__, citation="", features=features)

                def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
                    return {name: float(value) for name, value in function(predictions[:], references[:]).items()}

            with TemporaryDirectory() as folder:
                own = Metric(keep_in_memory=True, cache_dir=folder)
                return own.compute(predictions=predictions, references=references)

        return scores

    return made
