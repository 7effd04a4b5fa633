"""``vidseg`` and ``python -m vidseg``: the command, or one line that says what it lacks."""

from __future__ import annotations

import sys

HEADLESS = frozenset({"torch", "diffusers", "transformers", "safetensors", "numpy", "kornia", "av"})
"""Packages of the extra `headless`, which ComfyUI brings and a bare Python does not."""
EXIT_INCOMPLETE = 2


def main() -> int:
    """Run the command and return its exit code."""
    try:
        from .core.command.main import main as run  # noqa: PLC0415, needs what may be missing

        return run()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in HEADLESS:
            raise
        sys.stderr.write(
            f"vidseg: error: the command needs {missing}, which is not installed. "
            'Run: python -m pip install "comfyui-vidseg[headless]"\n'
        )
        return EXIT_INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
