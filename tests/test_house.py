"""The rules of the house that a reader could break without noticing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ulmfit_style"
MODULES = {
    str(path.relative_to(PACKAGE.parent).with_suffix("")).replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# From the ground up: a room imports from the floors below its own, and within its folder.
FLOORS = [
    {"errors", "words"},
    {"compute", "config", "metrics"},
    {"console", "tasks"},
    {"artefacts", "auto", "recipe"},
    {"models", "cli", "results"},
    {"data"},
    {"resolved", "training"},
    {"predictor", "analysis", "publishing"},
    {"serving"},
    {"stages"},
    {"chain"},
    {"launch", "experiments"},
    {"__main__"},
]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= (whole & set(MODULES)) or {node.module or ""}
    return found


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {""} == set().union(*FLOORS)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module)])
def test_imports_run_one_way(module: str):
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for other in imports(MODULES[module]):
        if other.startswith("ulmfit_style.") and room(other) != room(module):
            assert floor[room(other)] < floor[room(module)], f"{module} imports {other}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "stages"])
def test_no_stage_imports_another(module: str):
    others = {name for name in imports(MODULES[module]) if room(name) == "stages"}
    assert others <= {"ulmfit_style.stages.table"}


def test_hydra_stops_at_the_door():
    guests = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0] in {"hydra", "omegaconf"} for name in imports(path))
    }
    assert guests == {"ulmfit_style.cli.compose"}


@pytest.mark.parametrize(
    "module", [name for name in MODULES if room(name) in {"auto", "tasks", "config", "recipe", "resolved"}]
)
def test_tasks_and_config_are_imported_without_torch(module: str):
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'hydra'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_can_be_read_in_an_afternoon():
    assert sum(map(lines_of_code, MODULES.values())) < 11851


def lines_of_code(path: Path) -> int:
    """Count the lines that hold code: no blanks, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    held: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_docstring:
            blocks = [child.lineno for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
            end = node.end_lineno or node.lineno
            held.update(range(node.lineno, min([end + 1, *blocks])))
    return len(held)
