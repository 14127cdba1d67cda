"""How long short commands take: `python bench/commands.py [times=5]`, after `make adapt finetune`, on an idle machine.

Each in a process of its own, in turns. It prints a Markdown table of medians: seconds by the clock, with the lowest and
the highest, and CPU seconds.
"""

import statistics
import subprocess
import sys
import time
from resource import RUSAGE_CHILDREN, getrusage

COMMANDS = {
    "`--help`": (["--help"], "usage"),
    "a wrong option": (["finetune", "finetune.epoch=3"], "did you mean"),
    "`plan adapt finetune`": (["plan", "adapt", "finetune"], "up to date"),
    "`adapt finetune`, all of it up to date": (["adapt", "finetune"], "[4/4] finetune: fine-tuned model: up to date"),
    "`doctor`": (["doctor"], "torch"),
}
"""Commands, and what they have to say."""


def run(arguments: list[str], said: str) -> tuple[float, float]:
    """Run a command, and return its seconds by the clock and its CPU seconds."""
    before, started = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "ulmfit_style", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if said not in (output := done.stdout + done.stderr):
        sys.exit(f"{' '.join(arguments)} did not say '{said}':\n{output}")
    seconds, after = time.perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str]) -> None:
    """Let the commands take turns; the first round warms up, and is not counted."""
    given = {name: int(value) for name, _, value in (word.partition("=") for word in arguments)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(1 + given.get("times", 5)):
        for name, command in COMMANDS.items():
            found[name].append(run(*command))
    print("| command | seconds | CPU seconds |\n|---|---|---|")
    for name, measured in found.items():
        clock, cpu = zip(*measured[1:], strict=True)
        spread = f"{statistics.median(clock):.2f} ({min(clock):.2f} to {max(clock):.2f})"
        print(f"| {name} | {spread} | {statistics.median(cpu):.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
