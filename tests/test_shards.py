"""A corpus in shards: what a new file costs, and what streaming keeps, draws and goes on from."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pytest
import yaml
from safetensors.numpy import load_file
from samples import jsonl, reviews
from transformers import PreTrainedTokenizerFast

from ulmfit_style.__main__ import main
from ulmfit_style.cli.compose import compose
from ulmfit_style.config.training import Corpus
from ulmfit_style.data import corpus, remote, shards, tokens
from ulmfit_style.data.corpus import Documents
from ulmfit_style.data.tokens import Chunks
from ulmfit_style.errors import UserError
from ulmfit_style.training.batching import ShuffledDataset
from ulmfit_style.training.packing import PackedDataset

LENGTH = 24


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of seven files, of which four are large enough to be a shard each."""
    monkeypatch.setattr(corpus, "SHARD", 1500)
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, count in enumerate((40, 40, 2, 2, 40, 40, 2)):
        jsonl(folder / f"{number}.jsonl", [{"text": text} for text, _, _ in reviews(count, seed=number)])
    return folder


@pytest.fixture
def read(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., tuple[Documents, Chunks, Chunks]]:
    """Read and tokenise a corpus as a new command does."""

    def load(path: object, runs: str = "runs", **options: Any) -> tuple[Documents, Chunks, Chunks]:
        corpus.load.cache_clear()
        documents = corpus.load(Corpus(path=str(path), **options), None, tmp_path / runs)
        return documents, *tokens.load(documents, tokenizer, LENGTH, tmp_path / runs)

    return load


def made(runs: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob(f"*/{shards.TABLE}")}


def same_rows(one: Chunks, other: Chunks) -> bool:
    assert len(one) == len(other) > 0
    return all(
        np.array_equal(a[name], b[name])
        for a, b in zip(map(one.__getitem__, range(len(one))), map(other.__getitem__, range(len(one))), strict=True)
        for name in tokens.COLUMNS
    )


def test_a_new_file_is_read_and_tokenised_alone_and_shards_change_nothing(read, texts: Path, tmp_path: Path):
    read(texts)
    before = made(tmp_path / "runs")
    assert len(before) >= 2 * 5
    new = [{"text": f"new {text}"} for text, _, _ in reviews(40, seed=9)]
    jsonl(texts / "35.jsonl", new)
    documents, train, heldout = read(texts)
    after = made(tmp_path / "runs")
    assert after.items() >= before.items()
    assert len(after) in (len(before) + 2, len(before) + 4)  # and the small files that were before it, if there are

    corpus.SHARD = 10**9  # the fixture sets it back
    whole, whole_train, whole_heldout = read(texts, runs="whole")
    assert len(made(tmp_path / "whole")) == 2
    assert list(documents.train) == list(whole.train)
    assert documents.identity == whole.identity
    assert same_rows(train, whole_train)
    assert same_rows(heldout, whole_heldout)


def test_a_share_of_the_documents_is_all_that_is_tokenised(read, texts: Path, tmp_path: Path):
    documents, train, heldout = read(texts, max_documents=30)
    assert len(documents.train) + len(documents.heldout) == 30
    kept = sum(len(shards._mapped(path)) for path in (tmp_path / "runs").glob(f"tokens-*/{shards.TABLE}"))
    assert kept == len(train) + len(heldout)


@pytest.mark.parametrize("max_documents", [None, 60])
def test_a_streamed_corpus_has_the_same_rows_and_is_not_kept(read, texts: Path, tmp_path: Path, max_documents):
    _, train, heldout = read(texts, max_documents=max_documents)
    documents, streamed, streamed_heldout = read(texts, "streamed", max_documents=max_documents, stream=True)
    assert same_rows(train, streamed)
    assert same_rows(heldout, streamed_heldout)
    columns = [shards._mapped(path).column_names for path in (tmp_path / "streamed").glob(f"*/{shards.TABLE}")]
    assert not any("text" in names for names in columns)
    assert sum("input_ids" in names for names in columns) == 1  # of the held-out ones
    assert list(documents.heldout)


def test_rows_are_drawn_from_one_shard_after_another_in_another_order_in_each_epoch(read, texts: Path, monkeypatch):
    for number in (2, 3, 6):  # too small to fill up a batch
        (texts / f"{number}.jsonl").unlink()
    packed = PackedDataset(read(texts, stream=True)[1], LENGTH, first_position=0)
    dataset = ShuffledDataset(packed, 4, seed=0, phase=0)
    orders = [dataset.order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(len(packed)))
    assert orders[0] != orders[1] != orders[2]
    assert ShuffledDataset(packed, 4, seed=0, phase=0).order(2) == orders[2]
    first = [int(np.searchsorted(packed.ends, order[0], side="right")) for order in orders]
    assert len(set(first)) > 1

    opened, table = list[shards.Shard](), shards.Shard.table
    monkeypatch.setattr(shards.Shard, "table", lambda shard: (opened.append(shard), table(shard))[1])
    for place in range(len(dataset)):
        dataset[place]
    assert len(packed.ends) == 4
    assert len(opened) <= 2 * 4  # the texts of each, and its tokens


def streaming(tiny_overrides: list[str], texts: Path, *options: str) -> list[str]:
    kept = [option for option in tiny_overrides if not option.startswith(("task", "finetune", "adapt.epochs"))]
    fixed = ["adapt.epochs=3", "adapt.general=null", "adapt.max_length=32", "task=none"]
    return ["adapt", *kept, *fixed, f"corpus.path={texts}", "corpus.stream=true", *options]


def weights(runs: Path) -> dict[str, np.ndarray]:
    return load_file(next(runs.glob("adapt-*/model.safetensors")))


def test_a_streamed_run_that_is_killed_goes_on_to_the_same_weights(
    tiny_overrides: list[str], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = streaming(tiny_overrides, texts, "save_minutes=1e-9")
    assert main([*command, f"runs={tmp_path / 'whole'}"]) == 0
    getitem, read = Chunks.__getitem__, 0

    def dies(rows: Chunks, index: int) -> Any:
        nonlocal read
        read += 1
        if read == 300:
            raise KeyboardInterrupt
        return getitem(rows, index)

    with monkeypatch.context() as patch:
        patch.setattr(Chunks, "__getitem__", dies)
        assert main([*command, f"runs={tmp_path / 'killed'}"]) == 130
    assert list(tmp_path.glob("killed/adapt-*/checkpoints/*/checkpoint-*"))
    assert main([*command, f"runs={tmp_path / 'killed'}"]) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


RANK = """
import os
from pathlib import Path
from ulmfit_style import launch
from ulmfit_style.data import corpus, shards
corpus.SHARD, write = 1500, shards.Shard._write
def noted(*arguments):
    Path(f"wrote-{os.environ['RANK']}").touch()
    write(*arguments)
shards.Shard._write = noted
raise SystemExit(launch.main(["recipe.yaml", "adapt"]))
"""


def test_two_processes_share_the_shards_and_train_as_one(tiny_overrides: list[str], texts: Path, tmp_path: Path):
    command = streaming(tiny_overrides, texts)
    assert main([*command, f"runs={tmp_path / 'one'}"]) == 0
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    recipe = compose([*command[1:], f"runs={tmp_path / 'two'}"]).recipe()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    places = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    environments = [{**os.environ, **places, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    started = [subprocess.Popen([sys.executable, "-c", RANK], cwd=tmp_path, env=each) for each in environments]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert {path.name for path in tmp_path.glob("wrote-*")} == {"wrote-0", "wrote-1"}
    one, two = (weights(tmp_path / runs) for runs in ("one", "two"))
    assert all(np.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_files_at_an_address_are_read_there_and_no_copy_is_left(read, texts: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(remote.embedded, "cache", lambda: tmp_path / "cache")
    bucket = fsspec.filesystem("memory")
    bucket.put(f"{texts}/", "/bucket/texts/", recursive=True)
    bucket.pipe("/bucket/texts/picture.png", b"")
    try:
        documents, train, _ = read("memory://bucket/texts", stream=True)
        assert same_rows(train, read(texts, runs="local")[1])
        assert not (tmp_path / "cache").exists()
        bucket.pipe("/bucket/texts/1.jsonl", json.dumps({"text": "another one"}).encode())
        with pytest.raises(UserError, match=r"corpus.path: memory://.*1.jsonl has changed meanwhile; give the"):
            list(documents.train)
        assert not list(tmp_path.glob("runs/.*.arrow.*"))
        identity = documents.identity
        assert read("memory://bucket/texts", stream=True)[0].identity != identity
    finally:
        bucket.rm("/bucket", recursive=True)


def test_a_folder_of_a_web_server_is_streamed_and_a_change_there_is_noticed(read, texts: Path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=texts)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        documents, train, _ = read(address, stream=True)
        assert same_rows(train, read(texts, runs="local")[1])
        changed = (texts / "1.jsonl").read_text().replace("film", "mlif")
        (texts / "1.jsonl").write_text(changed)
        os.utime(texts / "1.jsonl", (0, 0))  # HTTP tells the time in seconds
        with pytest.raises(UserError, match=r"http://.*/1.jsonl has changed meanwhile"):
            list(documents.train)
        server.shutdown()


def test_texts_that_an_earlier_version_kept_are_made_anew(read, texts: Path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(corpus, "SCHEMA", corpus.SCHEMA.remove(2))
        earlier.setattr(
            corpus, "_hashed", lambda texts: pyarrow.record_batch([texts, range(len(texts))], corpus.SCHEMA)
        )
        read(texts)
    assert read(texts)[0].train.bytes > 0


def test_a_task_s_own_text_is_not_streamed(tmp_path: Path, tiny_overrides: list[str], capsys):
    assert main(["adapt", *tiny_overrides, "corpus.stream=true"]) == 2
    assert "corpus.stream=true: streams files; name them by corpus.path" in capsys.readouterr().err


def test_a_model_that_carries_its_state_cannot_stream(tmp_path: Path, texts: Path, capsys):
    options = ["model=awd_lstm", "task=none", f"corpus.path={texts}", "corpus.stream=true", f"runs={tmp_path}"]
    assert main(["adapt", *options]) == 2
    assert "corpus.stream=true: a model of type 'awd_lstm' reads as many documents" in capsys.readouterr().err
