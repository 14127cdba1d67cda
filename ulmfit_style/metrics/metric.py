"""What the metrics are: modules of `evaluate` that need no network."""

import abc
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import evaluate
from datasets import Features, Value

TEXT = Value("string")


class Metric(evaluate.Metric, abc.ABC):
    """The scores of one kind of answer, by their names."""

    forms: ClassVar[Sequence[tuple[Any, Any]]]
    """The types that a prediction and its reference may have."""

    def _info(self) -> evaluate.MetricInfo:
        features = [Features({"predictions": ours, "references": right}) for ours, right in self.forms]
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=features)

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return {name: float(value) for name, value in self.of(predictions[:], references[:]).items()}

    @abc.abstractmethod
    def of(self, predictions: Any, references: Any) -> dict[str, Any]:
        """Return the scores."""

    @classmethod
    def scores(cls, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """Return the scores; nothing is written to the user's home, where `evaluate` makes a folder for each metric."""
        with TemporaryDirectory() as folder:
            return cls(keep_in_memory=True, cache_dir=folder).compute(predictions=predictions, references=references)
