"""Where results lie below the host's folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...core.files.disk import Place
from ...core.types import InputError


def find_free_place(prefix: str, default: str, suffix: str = "") -> tuple[Path, str]:
    """Return a free path below the output folder, and its text from there; ``default`` completes a folder's prefix."""
    text = prefix.strip()
    if not text or text.endswith(("/", "\\")):
        text += default
    output = folder_paths.get_output_directory()
    parent, name, counter, subfolder, _ = folder_paths.get_save_image_path(text, output)
    while (path := Path(parent) / f"{name}_{counter:05}_{suffix}").exists():
        counter += 1
    return path, (Path(subfolder) / path.name).as_posix()


def find_place(text: str, is_wanted: Callable[[Path], bool]) -> Path | None:
    """Return the wanted path that ``text`` means below the output or input folder, links followed, ``..`` not."""
    for folder in (folder_paths.get_output_directory(), folder_paths.get_input_directory()):
        base = os.path.abspath(folder)  # noqa: PTH100, links stay, unlike in Path.resolve
        path = Path(os.path.abspath(Path(base) / text.strip()))  # noqa: PTH100
        if path.is_relative_to(base) and is_wanted(path):
            return path
    return None


def require_place(name: str, text: str, is_wanted: Callable[[Path], bool], what: str, shown_by: str) -> Path:
    """Return `find_place` what the input ``name`` holds."""
    path = find_place(text, is_wanted)
    if path is None:
        raise InputError(
            f"`{name}` must be {what} below ComfyUI's output or input folder, but got {text!r}. Copy the text that "
            f"{shown_by} shows."
        )
    return path


OUTPUT_PLACE = Place("filename_prefix", "Free space, then run the graph again")
