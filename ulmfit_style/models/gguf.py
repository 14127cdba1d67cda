"""GGUF files: what llama.cpp keeps a quantised model in, made once into a checkpoint that can be trained and saved."""

from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from ulmfit_style.artefacts.directory import LOG, Artefact
from ulmfit_style.console import say
from ulmfit_style.errors import UserError
from ulmfit_style.models.embedded import cache
from ulmfit_style.tasks.types import Tokenizer

INSTEAD = "take the model's checkpoint in safetensors instead"

VERSION = 1
"""Raised whenever something else is made of the same file."""


def checkpoint(file: Path, sha256: str) -> Artefact:
    """Return the checkpoint that is made of a file, and make it the first time; all folders `runs` share it.

    Args:
        sha256: The digest of the file.

    Raises:
        UserError: if the file is no causal language model that transformers reads whole, with its tokenizer.
    """
    artefact = Artefact("gguf", {"version": VERSION, "gguf": sha256}, cache())
    if not artefact.finished:
        say(f"{file.name}: read into a checkpoint, once; one of 135M parameters takes about a minute")
        artefact.make(partial(_convert, file), {"gguf": file.name}, alone=True)
    return artefact


def _convert(file: Path, directory: Path) -> None:
    """Save the model of a file with its tokenizer, in single precision: what its blocks of small integers stand for."""
    with (directory / LOG).open("a", encoding="utf-8") as log, redirect_stderr(log):  # where bars are drawn
        model, tokenizer = _read(file)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _read(file: Path) -> tuple[Any, Tokenizer]:
    """Return the model of a file and its tokenizer.

    Raises:
        UserError: if transformers cannot read the file, or would read another model than it holds.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.integrations.gguf.reader import read_gguf_metadata

    auto_class: Any = AutoModelForCausalLM
    settings: Any = {"gguf_file": file.name}
    try:
        metadata, tensors = read_gguf_metadata(str(file))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, **settings)
        settings |= {"dtype": torch.float32, "output_loading_info": True}
        quantised, loading = auto_class.from_pretrained(file.parent, **settings)
    except Exception as error:  # whichever of its readers it is, and whatever it raises
        problem = f"transformers cannot read it ({type(error).__name__}: {error})"
        raise UserError(f"{file}: {problem}; {INSTEAD}") from error
    _mend_splitting(tokenizer, metadata, file)
    count, missing = len(list(quantised.parameters())), len(loading["missing_keys"])
    # What is left out of Llama 3.1, say, is how its positions are scaled: it would be another model.
    if missing or len(tensors) != count:
        problem = f"holds {len(tensors)} tensors, and the {type(quantised).__name__} of transformers {count}"
        raise UserError(f"{file}: {problem}, of which {missing} are not in the file; {INSTEAD}")
    # transformers does not save a model that it read from such a file, only one that was given its weights.
    del quantised.config.quantization_config
    model = auto_class.from_config(quantised.config)
    model.load_state_dict(quantised.state_dict())
    tokenizer.model_max_length = model.config.max_position_embeddings
    return model, tokenizer


def _mend_splitting(tokenizer: Tokenizer, metadata: dict[str, Any], file: Path) -> None:
    """Let a tokenizer split text as it was split when its tokens were learned.

    Raises:
        UserError: if it was split in a way that transformers does not know.
    """
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    splitting = metadata.get("tokenizer.ggml.pre")
    if metadata["tokenizer.ggml.model"] != "gpt2" or splitting in {"gpt-2", *GGUF_PRE_TOKENIZER_SPLITS}:
        return
    # transformers would split as GPT-2 does, without a word.
    if splitting != "smollm":
        problem = f"its tokenizer splits text in the way '{splitting}', which transformers does not know"
        raise UserError(f"{file}: {problem}; {INSTEAD}")
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
