"""README and docs say what the program does, and every command in them is one that it takes."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from PIL import Image
from vidseg.core.command import asked, commands
from vidseg.core.command import main as cli
from vidseg.core.files.video import write_video

from .core.backbones.narrow_models import THIN, narrow_model
from .sources import ROOT

README, SETTINGS = ROOT / "README.md", ROOT / "docs" / "settings.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
RUN = {"demo", "segment", "regions", "score", "info"}
"""Commands that run here, on a small clip and a thin model; `bench` has its own tests, on copies of the data sets."""


def test_the_table_of_settings_is_current() -> None:
    """Else run `python scripts/readme_tables.py`."""
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "scripts" / "readme_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = SETTINGS.read_text(encoding="utf-8")
    assert text == tables.with_tables(text)


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_links_to_are_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert not [link for link in links if not (page.parent / unquote(link)).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:core|nodes|tests|scripts|benchmarks|docs|web|assets)/[\w./-]+)`", page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 170


def commands_of(page: Path) -> list[list[str]]:
    """Return the commands in the shell blocks of a page, as words; what a virtual environment is for is left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(part.strip().removeprefix(".venv/bin/")) for line in lines for part in line.split("&&")]


KNOWN = ("vidseg", "python", "python3", "pip", "git", "pre-commit", "ray", ".ci/run")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_such_as_the_programs_take(page: Path) -> None:
    for words in commands_of(page):
        assert words[0] in KNOWN, words
        if words[0] == "vidseg":
            cli.build_parser().parse_args(words[1:])
        elif words[0] == "python" and words[1].endswith(".py"):
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            options = [word.removeprefix("--") for word in words if word.startswith("--")]
            assert not [name for name in options if not re.search(rf"--{name}\b|\b{name}\b", script)], words


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name, small, in which commands start."""
    frames = torch.arange(64, dtype=torch.uint8)[None, :, None, None].expand(2, 64, 96, 3).clone()
    frames[:, 16:48, 20:60] = torch.tensor([250, 200, 20], dtype=torch.uint8)
    for name in ("clip.mp4", "second.mp4"):
        write_video(tmp_path / name, frames)
    (tmp_path / "masks").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray((frame[..., 0] == 250).to(torch.uint8).numpy()).save(tmp_path / "masks" / f"{number:05d}.png")
    narrow_model(tmp_path / "v2-1_512-ema-pruned.safetensors", THIN)
    monkeypatch.setattr(commands, "DEMO_CLIP", tmp_path / "clip.mp4")
    for module in (commands, asked):
        monkeypatch.setattr(module, "DEMO_MODEL", tmp_path / "v2-1_512-ema-pruned.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "command.md"], ids=name_of)
def test_commands_run_in_their_order(small: Path, page: Path) -> None:
    for words in commands_of(page):
        if words[0] == "vidseg" and words[1] in RUN:
            assert cli.main(words[1:]) == 0, words


def test_ci_runs_the_readme_s_test_command() -> None:
    command = "python -m pytest -n auto --dist loadfile --cov"
    assert command in README.read_text(encoding="utf-8")
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_s_python_is_the_first_example_of_the_docs() -> None:
    """Which `tests/core/test_api.py` runs."""
    first, example = (
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]
        for page in (README, ROOT / "docs" / "python.md")
    )
    assert first == example
