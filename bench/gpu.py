"""All that is to be known of a GPU, in eight minutes: `python bench/gpu.py [--out FOLDER] [key=value ...]`.

It runs on one GPU, and reaches nothing but the files of the project and the installed packages. In turn it

1. runs the tests that need a GPU, `pytest -m gpu`;
2. kills a small chain in each of its stages by SIGKILL, lets it go on, and compares its end with that of one that was
   not disturbed, and the difference with that between two which were not: a GPU adds in another order each time;
3. runs the shipped recipe, `adapt finetune`, in bf16, and shows its scores beside those of a CPU in fp32; further
   options on the command line are given to it, such as `model.checkpoint=folder` where the packages of `make setup` are
   not there;
4. measures how fast three sizes of model are trained, beside a plain Trainer (bench/gpu_speed.py), those that have to
   be compiled last.

What there is no time for is said to be missing. The table goes to gpu.md and all figures to gpu.json in the folder,
after each part. `--device cpu --tiny` does all of it with tiny models on a CPU in a minute, to see that it works.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from gpu_speed import COMPILED, MODELS, write_text
from gpu_speed import SMALL as SMALL_SCALE
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
SECONDS = 450
"""After the start no part of the bench begins a new piece of work; none takes more than some seconds to end."""

PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
}
"""Dense products in bf16, in operations a second, by how a device's name begins; the first that fits counts.

From NVIDIA's data sheet of each, which since Hopper and Ada tells the rate with sparsity: twice this."""

KNOWN = {
    "accuracy, adapted + fine-tuned": 0.737,
    "accuracy, fine-tuned, not adapted": 0.726,
    "loss on held-out text, checkpoint": 7.148,
    "loss on held-out text, adapted": 5.752,
}
"""The shipped recipe on a CPU in fp32, one seed (README.md)."""


class Bench:
    """The parts, and what they found."""

    def __init__(self, device: str, out: Path, folder: Path, *, tiny: bool) -> None:
        self.out, self.folder, self.tiny, self.started = out, folder, tiny, time.time()
        hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **hidden}
        self.device, self.log, self.found = device, folder / "log.txt", dict[str, Any]()

    @property
    def left(self) -> float:
        """The seconds until no more work is begun."""
        return self.started + SECONDS - time.time()

    def note(self, part: str, figures: Any) -> None:
        """Keep what a part found, in the table too."""
        self.found[part] = figures
        self.found["seconds"] = round(time.time() - self.started)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1))
        (self.out / "gpu.md").write_text("\n".join(table(self.found)) + "\n")
        print(f"{self.found['seconds']} s: {part}", flush=True)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command of Python. What it says goes to a file: what it starts itself would hold a pipe open."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *command: str, seconds: float) -> tuple[int | None, str]:
        """Run a command of Python; return its exit code, None where it took longer, and what it said."""
        process = self.start(*command)
        try:
            code: int | None = process.wait(max(1, min(seconds, self.left)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        return code, self.log.read_text(errors="replace")

    # The parts

    def look(self) -> None:
        """Note what the device is, and the rate that counts as its peak."""
        name, measured = "cpu", best_product(torch.device(self.device))
        if self.device == "cuda":
            name = torch.cuda.get_device_name()
        listed = next((peak for start, peak in PEAKS.items() if re.match(rf"{start}\b", name)), None)
        versions = {module.__name__: module.__version__ for module in (torch, transformers)}
        machine = {"python": platform.python_version(), "cuda": torch.version.cuda, **versions}
        peak = {"measured": measured, "data sheet": listed, "peak": listed or measured}
        self.note("device", {"name": name, "precision": "bf16" if name != "cpu" else "fp32", **peak, **machine})

    def test(self) -> None:
        """Run the tests that need a GPU."""
        command = [
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "tests/test_gpu.py",
            "--device",
            self.device,
            "-p",
            "no:cacheprovider",
        ]
        code, said = self.run(*command, *(["-k", "packed and fp32"] if self.tiny else []), seconds=150)
        lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
        last = re.findall(r"^\d+ (?:passed|failed|skipped).*", said, re.MULTILINE)
        self.note("tests", {"code": code, "said": last[-1] if last else said[-300:], "lines": lines})

    def kill(self) -> None:
        """Kill a small chain, and compare how it ends with one that was left alone."""
        small = self.folder / "small"
        small.mkdir()
        write_text(small, SMALL_SCALE)
        data = ["corpus=file", f"corpus.path={small / 'text.txt'}", "corpus.document=line"]
        sizes = ["model.architecture.hidden_size=32", "model.architecture.num_hidden_layers=2"]
        made = ["pretrain", "model=mini_bert", *sizes, "model.tokenizer.vocab_size=2000", "pretrain.max_length=64"]
        code, said = self.run("-m", "ulmfit_style", *made, *data, f"runs={small / 'start'}", seconds=60)
        if code != 0:
            self.note("resume", {"missing": f"pretrain ended with {code}: {said[-300:]}"})
            return
        options = [
            *(*data, f"model.checkpoint={(small / 'start/default/pretrain').resolve()}", f"save_minutes={1e-9}"),
            *("task=text_classification", f"task.path={small / 'rows.jsonl'}", "task.folds=0", "compare=false"),
            *("adapt.general=null", "adapt.max_length=64", "adapt.epochs=1"),
            *("finetune=plain", "finetune.epochs=2", "finetune.max_length=64"),
        ]

        def chain(name: str) -> list[str]:
            return ["-m", "ulmfit_style", "adapt", "finetune", *options, f"runs={small / name}"]

        found: dict[str, Any] = {"killed in": []}
        for stage in ("adapt", "finetune"):
            process = self.start(*chain("killed"))
            if self._wait(process, small / "killed", f"{stage}-*/checkpoints/phase-*/checkpoint-*/whole.json"):
                found["killed in"].append(stage)
            process.send_signal(signal.SIGKILL)
            process.wait()
        names = ["killed", "whole", *(["again"] if self.device == "cuda" else [])]
        for name in names:
            code, said = self.run(*chain(name), seconds=60)
            if code != 0:
                self.note("resume", {**found, "missing": f"{name}: ended with {code}: {said[-300:]}"})
                return
            found[f"{name}: goes on"] = said.count("goes on from")
        ends = {name: load_file(small / name / "default/finetune/model.safetensors") for name in names}
        for other in [name for name in names if name != "whole"]:
            differences = [(ends[other][name] - weights).abs().max() for name, weights in ends["whole"].items()]
            found[f"{other} and whole"] = float(torch.stack(differences).max())
            found[f"{other}: score"] = scores(small / other)
        found["whole: score"] = scores(small / "whole")
        self.note("resume", found)

    def _wait(self, process: subprocess.Popen[bytes], folder: Path, pattern: str) -> bool:
        """Wait for a file of a process, and tell whether it was there before its end."""
        while process.poll() is None and self.left > 0:
            if any(folder.glob(pattern)):
                return True
            time.sleep(0.005)
        return False

    def chain(self, options: Sequence[str]) -> None:
        """Run the shipped recipe; where it is to be tiny, on what `kill` has made."""
        runs = self.folder / "runs"
        if self.tiny:
            options = ["finetune=plain", "finetune.epochs=1", "task.train_samples=40", "compare=false", *options]
            made = self.folder / "small/start/default/pretrain"
            data = [f"task.path={self.folder / 'small/rows.jsonl'}", f"model.checkpoint={made.resolve()}"]
            options = ["task=text_classification", *data, "adapt.max_length=64", "finetune.max_length=64", *options]
        began = time.time()
        code, said = self.run("-m", "ulmfit_style", "adapt", "finetune", f"runs={runs}", *options, seconds=240)
        if code != 0:
            self.note("chain", {"missing": f"ended with {code}: {said.strip().splitlines()[-1:]}"})
            return
        heldout = json.loads((runs / "default/adapt/metrics.json").read_text())["heldout"]
        found = {"loss on held-out text, checkpoint": heldout[0]["loss"]}
        found["loss on held-out text, adapted"] = heldout[-1]["loss"]
        found["accuracy, adapted + fine-tuned"] = scores(runs)
        if match := re.search(r"fine-tuned, not adapted\D+[\d,]+\D+(0\.\d+)", said):
            found["accuracy, fine-tuned, not adapted"] = float(match[1])
        self.note("chain", {"seconds": round(time.time() - began), "shipped": not options, "scores": found})

    def speed(self) -> None:
        """Measure each size of model, and then each compiled."""
        rows: list[dict[str, Any]] = []
        turns = [([name], arms) for arms in ("plain", COMPILED) for name in MODELS]
        for models, arms in [(list(MODELS), "all")] if self.tiny else turns:
            command = [str(self.folder / "speed"), *models, "--arms", arms, "--until", str(time.time() + self.left)]
            tiny = ["--tiny"] if self.tiny else []
            code, said = self.run(str(ROOT / "bench/gpu_speed.py"), *command, *tiny, seconds=120)
            rows += [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            if code != 0:
                ended = "took too long" if code is None else f"ended with {code}: {said[-300:]}"
                rows.append({"model": models[0], "stage": "-", "arm": arms, "missing": ended})
            self.note("speed", rows)


def scores(runs: Path) -> float:
    """Return the accuracy on the test rows of a chain's fine-tuned model."""
    return float(json.loads((runs / "default/finetune/metrics.json").read_text())["test"]["scores"]["accuracy"])


def best_product(device: torch.device) -> float:
    """Return the rate of the fastest product of square matrices, in operations a second."""
    sizes, kind = ((4096, 8192, 16384), torch.bfloat16) if device.type == "cuda" else ((512, 1024), torch.float32)
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in "ab")
        for number in range(6):
            if number == 1:  # the first warms up
                started = synchronised()
            torch.mm(left, right)
        best = max(best, 5 * 2 * size**3 / (synchronised() - started))
    return best


def synchronised() -> float:
    """Return the time when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of the table of what was found so far."""
    device = found["device"]
    versions = ", ".join(f"{name} {device[name]}" for name in ("python", "torch", "transformers", "cuda"))
    rates = f"best product measured: {device['measured'] / 1e12:,.2f} TFLOP/s"
    source = "of its data sheet" if device["data sheet"] else "measured, for no data sheet of it is known here"
    yield f"{device['name']}, {device['precision']}; {versions}; {found['seconds']} s in all"
    yield f"The peak is {source}: {device['peak'] / 1e12:,.2f} TFLOP/s; {rates}."
    if tests := found.get("tests"):
        yield from ("", f"Tests: {tests['said']}", *(f"- {line}" for line in tests["lines"]))
    if resume := found.get("resume"):
        told = ", ".join(f"{what} {value}" for what, value in resume.items())
        yield from ("", f"Killed and resumed (largest difference of a weight): {told}")
    if chain := found.get("chain"):
        yield ""
        if "missing" in chain:
            yield f"The chain is missing: {chain['missing']}"
        else:
            yield f"The chain took {chain['seconds']} s."
            yield from ("", "| score | here | on a CPU, fp32 |", "|---|---|---|")
            for name, score in chain["scores"].items():
                yield f"| {name} | {score:.3f} | {KNOWN[name] if chain['shipped'] else '-'} |"
    if speed := found.get("speed"):
        yield from (
            "",
            "| model | stage | arm | tokens/s | share of the peak | most memory, MB | padding | ms a step |",
        )
        yield "|---|---|---|---|---|---|---|---|"
        for row in speed:
            named = f"| {row['model']} | {row['stage']} | {row['arm']} |"
            if "missing" in row:
                yield f"{named} {row['missing']} | | | | |"
            else:
                share, padding = row["flops"] / device["peak"], row["padding"]
                figures = f"{share:.1%} | {row['peak_mb']:,.0f} | {padding:.0%} | {row['step_ms']:,.1f}"
                yield f"{named} {row['tokens_per_second']:,.0f} | {figures} |"


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="with tiny models, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="the folder of gpu.md and gpu.json")
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the chain")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu --tiny tries the bench without one")
    if given.device == "cpu" and not given.tiny:
        parser.error("on a CPU it would take hours; give --tiny too")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.device, given.out.resolve(), Path(folder), tiny=given.tiny)
        bench.look()
        bench.test()
        bench.kill()
        bench.chain(given.options)
        bench.speed()
    print((given.out / "gpu.md").read_text(), end="")


if __name__ == "__main__":
    main()
