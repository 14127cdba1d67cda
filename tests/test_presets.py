"""check-presets, against a Hub on this machine, and the references to its files."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub, Repo, serve
from ulmfit_style.cli import CONF
from ulmfit_style.data.hub import HubFile, parse
from ulmfit_style.errors import UserError
from ulmfit_style.presets import _presets

# HF_ENDPOINT is read when huggingface_hub is imported, so each check is a process of its own.
CHECK = """
import sys
from pathlib import Path
from ulmfit_style import presets
from ulmfit_style.errors import UserError
try:
    presets.check(Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as server:
        yield server


def check(hub: Hub, conf: Path, **presets: str) -> subprocess.CompletedProcess[str]:
    (conf / "model").mkdir()
    for name, text in presets.items():
        (conf / "model" / f"{name}.yaml").write_text(text)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "COLUMNS": "120"}
    command = [sys.executable, "-c", CHECK, str(conf)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_preset_that_is_there_is_shown_with_its_commit(hub: Hub, tmp_path: Path):
    hub.repos["a/good"] = Repo(private=False, commits=[("", {"config.json": b"{}", "model.safetensors": b"w"})])
    ended = check(hub, tmp_path, good="checkpoint: a/good\n", embedded="checkpoint: package:x/model\n")
    assert ended.returncode == 0, ended.stderr
    (row,) = [line for line in ended.stdout.splitlines() if "model=" in line]
    assert hub.repos["a/good"].head[:8] in row
    assert "there" in row


def test_a_preset_without_safetensors_and_one_that_is_gone_are_told(hub: Hub, tmp_path: Path):
    hub.repos["a/old"] = Repo(private=False, commits=[("", {"config.json": b"{}", "pytorch_model.bin": b"w"})])
    ended = check(hub, tmp_path, old="checkpoint: a/old\n", gone="checkpoint: a/gone\n")
    assert ended.returncode == 1
    assert "has no model.safetensors" in ended.stdout
    assert "HTTP 404" in ended.stdout
    assert "2 of 2 presets cannot be had" in ended.stderr


def test_a_hub_that_does_not_answer_is_told_once(hub: Hub, tmp_path: Path):
    hub.url = "http://127.0.0.1:9"
    ended = check(hub, tmp_path, one="checkpoint: a/one\n", two="checkpoint: a/two\n")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("the Hub does not answer") == 1
    assert "Traceback" not in ended.stderr


def test_every_preset_from_the_hub_is_pinned_to_a_commit():
    presets = list(_presets(CONF))
    assert len(presets) == 18
    assert [preset.name for preset in presets if len(preset.revision or "") != 40] == []


def test_a_preset_reads_all_its_files_at_one_commit():
    for path in sorted(CONF.glob("task/*.yaml")):
        lines = [line.split()[-1] for line in path.read_text().splitlines() if re.match(r"(path|  \w+): hub:", line)]
        assert len({parse("task.path", line)[:2] for line in lines}) <= 1, path


def test_a_preset_tells_the_licence_of_its_own_source():
    told = 0
    for path in [*CONF.glob("model/*.yaml"), *CONF.glob("task/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        if found := re.search(r"^license: \S+ of (\S+)$", text, re.MULTILINE):
            assert re.search(rf"^(checkpoint|path|  train): {re.escape(found[1])}(@|$)", text, re.MULTILINE), path
            told += 1
        assert "license:" not in text.replace(found[0] if found else "", "")
    assert told == 14


def test_a_reference_to_a_file_of_the_hub_is_taken_apart():
    assert parse("task.path", "hub:a/b@main/data/x.csv") == HubFile("a/b", "main", "data/x.csv")
    assert parse("task.path", "hub:a/b/x.csv") == HubFile("a/b", None, "x.csv")


def test_a_reference_without_a_file_says_how_to_write_it():
    with pytest.raises(UserError, match=r"task\.path=hub:a/b: write hub:<account>/<name>/<file>"):
        parse("task.path", "hub:a/b")
