"""What the registry and `pip install` take of the project is there."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from typing import Any

import pytest
from PIL import Image
from vidseg.__main__ import EXIT_INCOMPLETE, HEADLESS
from vidseg.core.files.package import ASSETS, DEMO_CLIP, DEMO_MODEL

from .sources import ROOT, module_name, source_files


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("key", "size"), [("Icon", (400, 400)), ("Banner", (1680, 720))])
def test_pictures_of_the_registry(project: dict[str, Any], key: str, size: tuple[int, int]) -> None:
    repository = project["project"]["urls"]["Repository"].replace(
        "https://github.com", "https://raw.githubusercontent.com"
    )
    url = project["tool"]["comfy"][key]
    assert url.startswith(f"{repository}/main/assets/")
    with Image.open(ROOT / "assets" / url.rsplit("/", 1)[1]) as image:
        assert image.size == size


def card_links() -> list[str]:
    """Return the files that the model card shows or links."""
    text = (ROOT / "assets" / "MODEL_CARD.md").read_text(encoding="utf-8")
    return [f"assets/{link}" for link in re.findall(r"\]\((model_card/[^)]+)\)", text)]


def test_what_the_program_needs_is_installed_with_it(project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    packages = {module_name(path) for path in source_files(".", "core", "nodes") if path.name == "__init__.py"}
    assert packages == set(setuptools["packages"])
    patterns = setuptools["package-data"]["vidseg"]
    links = [link.removeprefix("assets/") for link in card_links()]
    needed = [DEMO_MODEL.name, DEMO_CLIP.name, "CREDITS.md", "MODEL_CARD.md", *links]
    for name in needed:
        assert (ASSETS / name).is_file()
        assert any(fnmatch(f"assets/{name}", pattern) for pattern in patterns), name


def test_the_registry_takes_what_runs_and_leaves_out_the_rest() -> None:
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = tuple(line for line in lines if line and not line.startswith("#"))
    assert {"tests/", "benchmarks/", "scripts/"} <= set(ignored)
    needed = (
        "core/command/main.py",
        "nodes/__init__.py",
        "web/docs/SegmentVideo.md",
        "locales/en/main.json",
        "__init__.py",
    )
    assets = ("assets/demo_clip.mp4", "assets/MODEL_CARD.md", *card_links())
    files = [*needed, *assets, "pyproject.toml", "requirements.txt", "LICENSE"]
    folders = [f"{name}/{next((ROOT / name).iterdir()).name}" for name in ("example_workflows", "subgraphs")]
    assert not [name for name in [*files, *folders] if name.startswith(ignored) or not (ROOT / name).is_file()]


@pytest.mark.parametrize("name", ["tests", "comfyui", "publish"])
def test_workflows_do_what_ci_does(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    assert "\n      - run: .ci/run\n" in text
    assert "scripts/try_packages.py" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_version_is_told_once(project: dict[str, Any]) -> None:
    version = project["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_command_says_what_to_install_where_the_extra_is_missing(project: dict[str, Any]) -> None:
    extra = project["project"]["optional-dependencies"]["headless"]
    assert {re.split("[<>=]", wanted)[0] for wanted in extra} == HEADLESS
    without = "import sys; sys.modules['torch'] = None; from vidseg.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", without, "demo"], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == EXIT_INCOMPLETE
    assert "needs torch" in line
    assert line.endswith('pip install "comfyui-vidseg[headless]"')
