"""A model as ONNX, in full and in 8 bits, with the names by which transformers.js and onnxruntime find it."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILES = {"ONNX": "onnx/model.onnx", "ONNX, 8 bits": "onnx/model_quantized.onnx"}
"""The names that transformers.js knows, by what the files are called in tables."""

OPSET = 18
"""The set of operators, which runtimes of 2023 and later have."""


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> None:
    """Write a model, its config and its tokenizer, which then cuts texts where the training did."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, in_8_bits = (folder / name for name in FILES.values())
    whole.parent.mkdir(exist_ok=True)
    model.config.use_cache = False
    inputs = dict(tokenizer(["one", "another one"], padding=True, return_tensors="pt"))
    with torch.inference_mode():
        outputs = list(model(**inputs).keys())
    with _quiet():
        program = torch.onnx.export(
            _ByPlace(model.eval(), list(inputs)),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in inputs),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # with dynamo there is one
        program.save(whole)
        # By channel, and unsigned: of four ways these changed the fewest answers (docs/how-to/export.md).
        quantize_dynamic(whole, in_8_bits, per_channel=True, weight_type=QuantType.QUInt8)
    _config(model).save_pretrained(folder)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


class _ByPlace(torch.nn.Module):
    """A model that is given its inputs by their places, as the exporter names them: some models pass others through."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(**dict(zip(self.names, inputs, strict=True))).values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporters say of their own insides."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _config(model: PreTrainedModel) -> Any:
    """Return the config by which transformers.js runs a model: it knows bodies, and no head of ours."""
    config = model.config
    body = getattr(config, "body", None)
    if body is None:
        return config
    for name in ("id2label", "label2id", "problem_type"):
        setattr(body, name, getattr(config, name))
    return body


@final
class OnnxModel:
    """A model that onnxruntime runs, in the place of the one of torch that it was made of.

    Args:
        config: That of the other model.
    """

    device = "cpu"

    def __init__(self, path: Path, config: Any) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.config, self._session = config, InferenceSession(path, options)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def eval(self) -> None:
        """It has no other mode."""

    def register_forward_hook(self, hook: Callable[..., None]) -> AbstractContextManager[None]:
        """Nothing within it can be looked at."""
        return nullcontext()

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Return what the model makes of a batch, by the names that it has in transformers."""
        none = torch.zeros_like(inputs["input_ids"])  # as transformers has it of token types that are not given
        outputs = self._session.run(self._outputs, {name: inputs.get(name, none).numpy() for name in self._inputs})
        return SimpleNamespace(**dict(zip(self._outputs, map(torch.from_numpy, outputs), strict=True)))
