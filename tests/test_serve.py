"""serve: over real HTTP, many at once."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from recipes import Trained
from samples import reviews

from ulmfit_style import load
from ulmfit_style.__main__ import main
from ulmfit_style.predictor import Predictor

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

Training = Callable[[str], Trained]


class Service:
    """A running service, and the batches that its model answered."""

    def __init__(self, model: Predictor, token: str | None = None) -> None:
        from ulmfit_style.serving.app import app

        self.model, self.batches, stream = model, [], model.stream

        def counted(rows: list[Any]) -> Any:
            self.batches.append(len(rows))
            return stream(rows)

        model.stream = counted  # type: ignore[method-assign]
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        service = app(model, "reviews", ["127.0.0.1"], token, 20_000)
        self.server = uvicorn.Server(uvicorn.Config(service, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(
            "GET" if body is None else "POST", path, sent, {"Content-Type": "application/json", **headers}
        )
        with closing(connection), connection.getresponse() as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def serve(trained: Training) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def start(kind: str = "text classification", **options: Any) -> Service:
        running.append(Service(load(trained(kind).directory, "cpu", options.pop("task", None)), **options))
        return running[-1]

    yield start
    for service in running:
        service.end()


def test_two_hundred_at_once_are_answered_in_batches_each_with_its_own(
    serve: Callable[..., Service], trained: Training
):
    service = serve(task={"top_k": "all"})
    texts = [f"{text} {number}" for number, (text, *_) in enumerate(reviews(200))]
    expected = load(trained("text classification").directory, "cpu", {"top_k": "all"})(texts)
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda text: service.ask("/predict", {"inputs": text}), texts))
    assert [status for status, _ in answers] == [200] * 200
    for (_, answer), right in zip(answers, expected, strict=True):
        assert answer["answers"][0]["scores"] == pytest.approx(right["scores"], abs=1e-5)
    assert sum(service.batches) == 200
    assert len(service.batches) < 200


def test_what_is_too_long_or_no_text_is_refused_with_the_reason(serve: Callable[..., Service]):
    service = serve()
    status, answer = service.ask("/predict", {"inputs": "a" * 30_000})
    assert status == 413
    assert answer["detail"].startswith("30,014 bytes are too many; send at most 20,000 (serve.max_mb)")
    assert service.ask("/predict", {"inputs": [["a", "b", "c"]]})[0] == 422
    for body, place in (
        ({"inputs": 3}, "body inputs: "),
        (b"no JSON", "body 0: "),
        ({}, "body inputs: Field required"),
    ):
        status, answer = service.ask("/predict", body)
        assert status == 422
        assert answer["detail"].startswith(place)
        assert answer["detail"].endswith('openapi.json tells what is taken, such as {"inputs": "a text"}')
    status, answer = service.ask("/predict", {"inputs": ["fine", {"other": "x"}]})
    assert status == 422
    assert "inputs[1]: no column could be identified as the text" in answer["detail"]
    status, answer = service.ask("/file?name=../rows.csv", b"other\nx\n")
    assert status == 422
    assert answer["detail"].startswith("file=rows.csv: no column could be identified as the text")
    assert service.ask("/file?name=rows.zip", b"PK")[1]["detail"].startswith("rows.zip: must end in .csv, .tsv")
    assert service.ask("/predict", {"inputs": "a film"})[0] == 200  # which goes on


def test_one_request_that_cannot_be_answered_does_not_spoil_those_beside_it(serve: Callable[..., Service]):
    service = serve("questions")
    good, bad = {"question": "who saw it", "context": "Ada saw it"}, {"question": "who " * 200, "context": "Ada"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda inputs: service.ask("/predict", {"inputs": inputs}), [good, bad] * 4))
    assert [status for status, _ in answers] == [200, 422] * 4
    assert "shorten the question" in answers[1][1]["detail"]


def test_a_file_comes_back_with_its_answers_and_the_page_and_its_description_are_there(serve: Callable[..., Service]):
    service = serve()
    status, text = service.ask("/file?name=rows.csv", b"number,review,label\n1,the film was good,\n2,=dreadful,x\n")
    rows = list(csv.DictReader(text.splitlines()))
    assert status == 200
    assert [row["review"] for row in rows] == ["the film was good", "'=dreadful"]
    assert rows[1]["input_label"] == "x"
    assert rows[0]["label"] in ("good", "bad")
    assert service.ask("/health")[1] == {
        "status": "ok",
        "model": "reviews",
        "task": "TextClassification",
        "inputs": ["text"],
        "is_explained": True,
    }
    assert {"/predict", "/file", "/health"} <= set(service.ask("/openapi.json")[1]["paths"])
    page = service.ask("/")[1]
    assert not re.search(r"https?://", page)  # nothing is loaded from elsewhere
    assert service.ask("/", Host="elsewhere.example")[0] == 400


def test_a_token_is_asked_for_where_there_is_one(serve: Callable[..., Service]):
    service = serve(token="secret")
    assert service.ask("/health")[0] == 200
    assert service.ask("/predict", {"inputs": "a"})[0] == 401
    assert service.ask("/predict", {"inputs": "a"}, Authorization="Bearer other")[0] == 401
    assert service.ask("/predict", {"inputs": "a"}, Authorization="Bearer secret")[0] == 200


def test_a_taken_port_and_missing_packages_are_told_before_the_model_is_loaded(
    trained: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    overrides = trained("text classification").overrides
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", *overrides, f"serve.port={port}"]) == 2
    error = capsys.readouterr().err
    assert f"serve.port={port}: address already in use; choose another, such as serve.port={port + 1}" in error
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    assert main(["serve", *overrides]) == 2
    assert "serve: needs fastapi and uvicorn; install it: pip install fastapi uvicorn" in capsys.readouterr().err


@pytest.mark.slow
def test_it_ends_when_it_has_answered(trained: Training):
    command = [sys.executable, "-m", "ulmfit_style", "serve", *trained("text classification").overrides, "serve.port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "Ctrl-C" in line)
        port = int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", "/predict", json.dumps({"inputs": ["a film"] * 500}), {"Content-Type": "application/json"}
        )
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        with closing(connection), connection.getresponse() as response:
            answer = json.loads(response.read())
        assert len(answer["answers"]) == 500
        assert "serve: ended" in process.stdout.read()
    assert process.returncode == 0
