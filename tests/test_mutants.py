"""Changes of single lines that make the program wrong, and the tests that notice: `mutants.toml` lists them.

`python tests/test_mutants.py [WORD ...]` tries all of them, or those with one of the words in their names.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests/mutants.toml"
MUTANTS = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutant"]

SLOW_LIBRARIES = ("datasets", "evaluate", "peft", "scipy.stats", "sklearn.linear_model", "torch", "transformers")
"""Imported once, before the process is forked for each mutant."""


def sources(root: Path = ROOT) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in (root / "ulmfit_style").rglob("*.py")}


def test_the_text_of_every_mutant_stands_once_in_the_package():
    lines = [line for text in sources().values() for line in text.splitlines()]
    counts = {mutant["name"]: sum(line.count(mutant["was"]) for line in lines) for mutant in MUTANTS}
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_the_test_of_every_mutant_is_there_and_no_name_is_used_twice():
    missing = []
    for mutant in MUTANTS:
        file, _, test = mutant["test"].partition("::")
        path = ROOT / "tests" / file
        if not path.is_file() or f"def {test.partition('[')[0]}(" not in path.read_text(encoding="utf-8"):
            missing.append(mutant["test"])
    assert missing == []
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS) >= 64


@pytest.mark.slow
def test_every_mutant_is_killed_by_its_test():
    ended = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def survivors(words: list[str]) -> list[str]:
    """Try the mutants in a copy of the checkout; return the names of those that their tests do not notice."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant["name"] for word in words)]
    for library in SLOW_LIBRARIES:
        __import__(library)
    alive = []
    with TemporaryDirectory() as folder:
        sandbox = Path(folder).resolve()
        for path in ROOT.iterdir():
            if path.name in ("ulmfit_style", "tests", "conf", "hydra_plugins"):
                shutil.copytree(path, sandbox / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif not path.name.startswith(".git"):
                (sandbox / path.name).symlink_to(path)
        unchanged = sources(sandbox)
        for number, mutant in enumerate(chosen, start=1):
            path, text = next((path, text) for path, text in unchanged.items() if mutant["was"] in text)
            path.write_text(text.replace(mutant["was"], mutant["becomes"]), encoding="utf-8")
            started = time.monotonic()
            killed = fails(mutant["test"], sandbox)
            path.write_text(text, encoding="utf-8")
            if not killed:
                alive.append(mutant["name"])
            outcome = f"{'killed' if killed else 'SURVIVES'} in {time.monotonic() - started:.1f} s"
            print(f"[{number}/{len(chosen)}] {outcome}: {mutant['name']}", flush=True)
    return alive


def fails(test: str, sandbox: Path) -> bool:
    """Run a test in a process of its own, and tell whether it fails.

    Raises:
        RuntimeError: if it cannot be run.
    """
    printed = sandbox / "printed.txt"
    child = os.fork()
    if child == 0:
        code = -1
        try:
            os.chdir(sandbox)
            os.environ |= {"PYTHONPATH": str(sandbox), "PYTHONDONTWRITEBYTECODE": "1"}
            sys.dont_write_bytecode = True
            sys.path[:] = [str(sandbox), *(entry for entry in sys.path if Path(entry) not in (ROOT, ROOT / "tests"))]
            with printed.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            # The libraries are imported already, so what they assert cannot be rewritten.
            options = ["--assert=plain", "-x", "-q", "-m", "", "-p", "no:cacheprovider"]
            code = int(pytest.main([f"tests/{test}", *options]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{test} ended with code {code}:\n{printed.read_text(encoding='utf-8')}")
    return code == pytest.ExitCode.TESTS_FAILED


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    left = survivors(sys.argv[1:])
    print(f"{len(left)} mutants survive", *left, sep="\n  ")
    sys.exit(bool(left))
