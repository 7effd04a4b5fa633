"""Which file may import what: the layers of the project hold."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .sources import ROOT, imported_modules, module_name, source_files

HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "node_helpers"}
DIFFUSERS = {"diffusers", "transformers"}
CORE = source_files("core")
ADAPTERS = {name: source_files(f"core/backbones/{name}") for name in ("comfy", "diffusers")}
STANDALONE = [
    path for path in CORE if path not in [*ADAPTERS["comfy"], *ADAPTERS["diffusers"]] and path.name != "__main__.py"
]
MAY_IMPORT = {
    "leaves": set(),
    "types": {"leaves"},
    "progress": set(),
    "documents": {"types"},
    "config": {"types"},
    "checkpoints": {"documents", "config", "types"},
    "backbones": {"config", "types"},
    "backbones.comfy": {"backbones", "config", "types"},
    "backbones.diffusers": {"documents", "backbones", "checkpoints", "config", "types"},
    "regions": {"config", "documents", "leaves", "types"},
    "method": {"documents", "backbones", "config", "leaves", "progress", "regions", "types"},
    "files": {"documents", "backbones", "config", "leaves", "regions", "types"},
    "engine": {
        "backbones", "backbones.diffusers", "checkpoints", "config", "files", "method", "progress", "types",
    },
    "evaluation": {
        "backbones", "backbones.diffusers", "checkpoints", "config", "documents", "engine", "files", "method",
        "progress", "regions", "types",
    },
    "api": {
        "backbones", "backbones.diffusers", "checkpoints", "config", "files", "leaves", "method", "regions", "types",
    },
    "command": {
        "backbones", "backbones.diffusers", "checkpoints", "config", "engine", "evaluation", "files", "leaves",
        "method", "progress", "regions", "types",
    },
    "nodes.host": {"backbones", "config", "files", "method", "progress", "regions", "types"},
    "nodes": {
        "backbones", "backbones.comfy", "checkpoints", "config", "documents", "evaluation", "files", "method",
        "nodes.host", "progress", "regions", "types",
    },
}  # fmt: skip
"""Rooms, from the ground up, and the rooms whose modules those of a room may import."""
MAX_FLOORS = 9
"""Rooms that stand on top of each other, at most."""


def room_of(name: str) -> str:
    """Return the room of a module of ours: ``method`` of ``vidseg.core.method.context``."""
    parts = name.split(".")[1:]
    inner = parts[1:] if parts[0] == "core" else parts
    rooms = [".".join(inner[:2]), inner[0]] if inner else [""]
    return next((room for room in rooms if room in MAY_IMPORT), "")


@cache
def arrows() -> dict[str, set[str]]:
    """Return the rooms that each room imports, as they are written, at import or later."""
    found: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for path in source_files("core", "nodes"):
        room = room_of(module_name(path))
        names = [name for name, _ in imported_modules(path) if name.startswith("vidseg.")]
        found.setdefault(room, set()).update({room_of(name) for name in names} - {room})
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_lies_below(room: str) -> None:
    assert arrows()[room] <= MAY_IMPORT[room]


def test_rooms_have_no_circle_and_few_floors() -> None:
    floors: dict[str, int] = {}
    for room in TopologicalSorter(arrows()).static_order():  # fails on a circle
        floors[room] = 1 + max((floors[below] for below in arrows().get(room, ())), default=0)
    assert max(floors.values()) <= MAX_FLOORS


@pytest.mark.parametrize("path", [path for path in source_files("core", "nodes") if path.name == "__init__.py"])
def test_every_room_says_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith('"""')


def top_levels(path: Path) -> set[str]:
    return {name.split(".")[0] for name, _ in imported_modules(path)}


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_imports_no_host_outside_its_adapter(path: Path) -> None:
    if path not in ADAPTERS["comfy"]:
        assert not top_levels(path) & HOST


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_imports_no_diffusers_outside_its_adapter(path: Path) -> None:
    if path not in ADAPTERS["diffusers"]:
        assert not top_levels(path) & DIFFUSERS


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_does_not_import_the_nodes(path: Path) -> None:
    assert not [name for name, _ in imported_modules(path) if name.startswith("vidseg.nodes")]


def test_root_imports_no_host_when_it_is_imported() -> None:
    (root,) = source_files(".")
    assert not {name.split(".")[0] for name, at_import in imported_modules(root) if at_import} & HOST


@pytest.mark.parametrize("path", source_files("core", "nodes"), ids=module_name)
def test_own_modules_are_imported_relatively(path: Path) -> None:
    assert not re.search(r"^\s*(from|import) vidseg\b", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_there_are_no_cycles() -> None:
    graph = {
        module_name(path): {
            name for name, at_import in imported_modules(path) if at_import and name != module_name(path)
        }
        for path in source_files("core", "nodes")
    }
    own = {name: {other for other in others if other in graph} for name, others in graph.items()}
    inner = {  # a submodule may name the package it lies in
        name: {other for other in others if not name.startswith(f"{other}.")} for name, others in own.items()
    }
    assert list(TopologicalSorter(inner).static_order())


def test_what_is_imported_is_declared() -> None:
    declared = {"torch", "diffusers", "transformers", "safetensors", "numpy", "av", "PIL"}
    declared |= {"sklearn", "scipy", "kornia", "threadpoolctl", "ray", "skimage", "tqdm"}
    third_party = set().union(*(top_levels(path) for path in CORE)) - set(sys.stdlib_module_names)
    assert third_party - {"vidseg"} - HOST <= declared


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["info", str(ROOT / "assets" / "demo_model.safetensors")]]
)
def test_commands_that_answer_at_once_import_no_torch(words: list[str]) -> None:
    code = "import sys, atexit; from vidseg.core.command.main import main\n"
    code += "atexit.register(lambda: print(*{'torch', 'scipy', 'PIL', 'av'} & set(sys.modules), file=sys.stderr))\n"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main())", *words],
        capture_output=True, text=True, check=False, cwd=ROOT / "tests", timeout=120,
    )  # fmt: skip
    assert (result.returncode, result.stderr.strip()) == (0, "")


def test_core_loads_without_host_diffusers_and_scikit_learn() -> None:
    modules = ", ".join(module_name(path) for path in STANDALONE)
    forbidden = sorted(HOST | DIFFUSERS | {"sklearn", "scipy.cluster"})  # what takes long is imported on first use
    code = f"import sys, {modules}\nprint(*set(sys.modules) & set({forbidden!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "tests", timeout=120
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
