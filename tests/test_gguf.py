"""GGUF files: tiny ones that the gguf package writes here, and the one of `model=smollm2_135m`."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import Model
from ulmfit_style.errors import UserError
from ulmfit_style.models.checkpoints import Checkpoint, resolve

Write = Callable[..., Path]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ", "th", "the", "Ġthe"]
MERGES = ["Ġ Ġ", "t h", "th e", "Ġ the"]
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
HEADER = {"name": "tiny", "block_count": 2, "context_length": 128, "embedding_length": 64, "feed_forward_length": 96}
HEADER |= {"head_count": 4, "head_count_kv": 2, "layer_norm_rms_eps": 1e-6, "rope_freq_base": 5000.0}
HEADER |= {"unk_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
QUANTISED = "mlp.down_proj"
TEXT = "In  1994 they saw\n    10 of the Größe, 漢字 and 🎉"


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """A tiny Llama whose weights are to be found again."""
    set_seed(0)
    sizes = {**SIZES, "intermediate_size": 96, "vocab_size": len(TOKENS), "max_position_embeddings": 128}
    return LlamaForCausalLM(LlamaConfig(**sizes, rope_theta=5000.0, tie_word_embeddings=True)).eval()


@pytest.fixture
def write(tmp_path: Path, llama: LlamaForCausalLM) -> Write:
    """Write a tiny Llama as llama.cpp does."""

    def write(split: str = "smollm", more: dict[str, torch.Tensor | None] | None = None) -> Path:
        file = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(file, "llama")
        for name, value in HEADER.items():
            getattr(writer, f"add_{name}")(value)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(split)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(MERGES)
        writer.add_chat_template("{{ messages[0]['content'] }}")
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        weights = {**dict(llama.named_parameters()), **(more or {})}
        for name, weight in ((name, weight) for name, weight in weights.items() if weight is not None):
            # llama.cpp turns neighbouring numbers of a head together, and transformers its two halves.
            heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
            if heads is not None:
                weight = weight.reshape(heads, 2, -1, 64).swapaxes(1, 2).reshape(weight.shape)  # noqa: PLW2901
            values, kind = weight.detach().contiguous().numpy(), gguf.GGMLQuantizationType.F32
            if QUANTISED in name:
                kind = gguf.GGMLQuantizationType.Q4_1
                values = gguf.quantize(values, kind)
            known = names.get_name(name.removesuffix(".weight"))
            writer.add_tensor(f"{known}.weight" if known else name, values, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file

    return write


@pytest.fixture(autouse=True)
def _own_cache(assets: Path) -> None:
    resolve.cache_clear()


def made_from(file: Path) -> Checkpoint:
    return resolve(Model(checkpoint=str(file)), "model.checkpoint")


def test_a_file_becomes_the_model_that_it_was_written_from(write: Write, llama: LlamaForCausalLM):
    made = AutoModelForCausalLM.from_pretrained(made_from(write()).directory)
    assert made.dtype == torch.float32
    assert made.config.rope_parameters["rope_theta"] == 5000
    expected = llama.state_dict()
    for name, weight in made.state_dict().items():
        if QUANTISED in name:
            kind = gguf.GGMLQuantizationType.Q4_1
            blocks = gguf.dequantize(gguf.quantize(expected[name].numpy(), kind), kind)
            expected[name] = torch.from_numpy(blocks)
        assert torch.equal(weight, expected[name]), name


def test_it_is_made_once_until_the_file_changes(write: Write, assets: Path, capsys: pytest.CaptureFixture[str]):
    file = write()
    first = made_from(file)
    assert "tiny.gguf: read into a checkpoint, once" in capsys.readouterr().out
    assert first.directory.parent == assets / "ulmfit-style"
    resolve.cache_clear()
    assert made_from(file) == first
    assert capsys.readouterr().out == ""
    resolve.cache_clear()
    assert made_from(write("gpt-2")).identity != first.identity


def test_a_damaged_file_is_told_and_nothing_is_left(write: Write, assets: Path):
    file = write()
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"tiny\.gguf: transformers cannot read it \(\w+: .*\); take"):
        made_from(file)
    assert [path.name for path in assets.glob("ulmfit-style/[!.]*")] == []


@pytest.mark.parametrize(
    ("split", "more", "message"),
    [
        ("poro", {}, "splits text in the way 'poro', which transformers does not know; take"),
        (
            "smollm",
            {"rope_freqs.weight": torch.ones(8)},
            "holds 21 tensors, and the LlamaForCausalLM of transformers 20",
        ),
        ("smollm", {"model.norm.weight": None, "other.weight": torch.ones(64)}, "of which 1 are not in the file; take"),
    ],
)
def test_what_transformers_would_read_wrongly_is_refused(split: str, more: dict, message: str, write: Write):
    with pytest.raises(UserError, match=message):
        made_from(write(split, more))


def test_a_gguf_file_is_adapted_and_its_tokenizer_splits_as_the_file_says(
    write: Write, tiny_overrides: list[str], tmp_path: Path
):
    options = [f"model.checkpoint={write()}", "adapt.max_length=32", "adapt.epochs=0.1", "adapt.general=null"]
    assert main(["adapt", *tiny_overrides, *options]) == 0
    assert "smollm" not in GGUF_PRE_TOKENIZER_SPLITS  # else `_mend_splitting` need not mend it
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "runs/default/adapt")
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    # Each digit by itself, so that the blanks before it stay together.
    assert tokenizer.tokenize("the  19") == ["the", "ĠĠ", "1", "9"]
    assert tokenizer.tokenize(" the<|im_end|>") == ["Ġthe", "<|im_end|>"]
    assert [getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")] == [1, 2, 2, 0]
    assert tokenizer.model_max_length == 128
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"


@pytest.mark.slow
def test_smollm2_is_sane():
    directory = resolve(compose(["model=smollm2_135m"]).model, "model.checkpoint").directory
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert tokenizer.tokenize("In  1994") == ["In", "ĠĠ", "1", "9", "9", "4"]
    trained = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = trained.generate(**prompt, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
