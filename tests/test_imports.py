"""Which file may import what: the layers of the project hold."""

from __future__ import annotations

import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .sources import ROOT, imported_modules, module_name, source_files

HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "node_helpers"}
CORE = source_files("core")
ADAPTERS_OF_HOST = sorted((ROOT / "core" / "backbones").glob("comfy_*.py"))
ADAPTERS_OF_DIFFUSERS = [
    *sorted((ROOT / "core" / "backbones").glob("diffusers_*.py")),
    ROOT / "core" / "backbones" / "empty_prompt.py",
]
STANDALONE = [
    path
    for path in CORE
    if path not in [*ADAPTERS_OF_HOST, *ADAPTERS_OF_DIFFUSERS] and path.name not in {"cli.py", "__main__.py"}
]


def top_levels(path: Path) -> set[str]:
    return {name.split(".")[0] for name, _ in imported_modules(path)}


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_imports_no_host_outside_its_adapter(path: Path) -> None:
    if path not in ADAPTERS_OF_HOST:
        assert not top_levels(path) & HOST


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_imports_no_diffusers_outside_its_adapter(path: Path) -> None:
    if path not in ADAPTERS_OF_DIFFUSERS:
        assert not top_levels(path) & {"diffusers", "transformers"}


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
    declared |= {"sklearn", "scipy", "kornia", "threadpoolctl", "ray"}
    third_party = set().union(*(top_levels(path) for path in CORE)) - set(sys.stdlib_module_names)
    assert third_party - {"vidseg"} - HOST <= declared


def test_core_loads_without_host_and_diffusers() -> None:
    modules = ", ".join(module_name(path) for path in STANDALONE)
    forbidden = sorted(HOST | {"diffusers", "transformers"})
    code = f"import sys, {modules}\nprint(*set(sys.modules) & set({forbidden!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "tests", timeout=120
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
