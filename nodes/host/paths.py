"""Where results lie below the host's folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...core.files.disk import Place
from ...core.types import InputError, quote

_LONGEST_NAME = 200
"""Bytes of each part of a prefix at most: systems allow 255, and a number and an ending come behind."""
_LONGEST_PREFIX = 1000
"""Characters of a prefix at most."""


def check_prefix(prefix: str | None) -> bool | str:
    """Return True for a prefix that a node may write to, or is connected; else what is wrong with it."""
    try:
        if prefix is not None:
            _require_prefix(prefix.strip())
    except InputError as error:
        return str(error)
    return True


def _require_prefix(text: str) -> None:
    """Check that a prefix names a place below the output folder that can be there."""
    parts = text.replace("\\", "/").split("/")
    base = Path(folder_paths.get_output_directory()).resolve()
    fault = ""
    if len(text) > _LONGEST_PREFIX or any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in parts):
        fault = f"have parts of at most {_LONGEST_NAME} bytes"
    elif any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        fault = "hold characters that a file's name can have"
    elif Path(text).is_absolute() or not (base / text).resolve().is_relative_to(base):
        fault = "stay below ComfyUI's output folder"
    elif any(path.exists() and not path.is_dir() for path in (base / text).parents if path.is_relative_to(base)):
        fault = "have folders before its name, not files"
    if fault:
        raise InputError(f"`filename_prefix` must {fault}, but got {quote(text)}. Use a text such as vidseg/name.")


def find_free_place(prefix: str, default: str, suffix: str = "") -> tuple[Path, str]:
    """Return a free path below the output folder, and its text from there; ``default`` completes a folder's prefix."""
    text = prefix.strip()
    _require_prefix(text)
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
        with contextlib.suppress(OSError, ValueError):  # names that no file can have
            path = Path(os.path.abspath(Path(base) / text.strip()))  # noqa: PTH100
            if path.is_relative_to(base) and is_wanted(path):
                return path
    return None


def require_place(name: str, text: str, is_wanted: Callable[[Path], bool], what: str, shown_by: str) -> Path:
    """Return `find_place` what the input ``name`` holds."""
    path = find_place(text, is_wanted)
    if path is None:
        raise InputError(
            f"`{name}` must be {what} below ComfyUI's output or input folder, but got {quote(text)}. Copy the text "
            f"that {shown_by} shows."
        )
    return path


OUTPUT_PLACE = Place("filename_prefix", "Free space, then run the graph again")
