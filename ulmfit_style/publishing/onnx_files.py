"""A model as ONNX, in full and in 8 bits, with the names by which transformers.js and onnxruntime find it."""

import logging
from copy import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.generic import ModelOutput

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
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of packages that it has no use for here
    program = torch.onnx.export(
        model.eval(),
        kwargs=inputs,
        output_names=outputs,
        dynamic_shapes={name: {0: "batch", 1: "length"} for name in inputs},
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None  # the older exporter alone returns none
    program.save(whole)
    # By channel, and unsigned: of four ways these changed the fewest answers (docs/how-to/serve.md).
    quantize_dynamic(whole, in_8_bits, per_channel=True, weight_type=QuantType.QUInt8)
    _config(model).save_pretrained(folder)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def _config(model: PreTrainedModel) -> Any:
    """Return the config by which transformers.js runs a model: it knows bodies, and no head of ours."""
    config = model.config
    if (body := getattr(config, "body", None)) is None:
        return config
    for name in ("id2label", "label2id", "problem_type"):
        setattr(body, name, getattr(config, name))
    return body


def by_onnx(model: PreTrainedModel, path: Path) -> PreTrainedModel:
    """Return a model whose outputs onnxruntime computes, from a file that was made of it."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(path, options)
    inputs, outputs = ([entry.name for entry in side] for side in (session.get_inputs(), session.get_outputs()))

    def forward(**given: torch.Tensor) -> ModelOutput:
        none = torch.zeros_like(given["input_ids"])  # as transformers has it of token types that are not given
        computed = session.run(outputs, {name: given.get(name, none).numpy() for name in inputs})
        return ModelOutput(**dict(zip(outputs, map(torch.from_numpy, computed), strict=True)))

    answering = copy(model)
    answering.forward = forward
    return answering
