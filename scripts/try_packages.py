"""Build what is published, and try it outside the checkout: the wheel, and the archive of the ComfyUI registry.

Usage: python scripts/try_packages.py, with the Python that has the packages of the extra `headless`.
A wheel must run `vidseg demo`; without these packages it must say what to install. The archive must run too, and a
ComfyUI (its folder at $COMFYUI_PATH or ~/comfy/ComfyUI), where there is one, must import it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACK = "ComfyUI-VidSeg"
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
HOST = ["--cpu", "--quick-test-for-ci", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]


def run(words: list[str], folder: Path, packages: Path | None = None, *, code: int = 0) -> str:
    """Run a command in ``folder`` with ``packages`` before those installed; return what it prints."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    if packages:
        environment["PYTHONPATH"] = str(packages)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != code:
        raise SystemExit(f"{words} ended with {done.returncode} instead of {code}:\n{done.stdout}{done.stderr}")
    return done.stderr + done.stdout


def try_command(packages: Path, folder: Path) -> None:
    """Run the demonstration of the package below ``packages``, then without any other package."""
    python = [sys.executable]
    where = run([*python, "-c", "import vidseg; print(vidseg.__file__)"], folder, packages).strip()
    if not Path(where).is_relative_to(packages):
        raise SystemExit(f"{where} was imported instead of the package in {packages}")
    print(run([*python, "-m", "vidseg", "demo", "--quality", "draft"], folder, packages).splitlines()[-1])
    shutil.rmtree(folder / "vidseg-demo")
    told = run([*python, "-S", "-m", "vidseg", "demo"], folder, packages, code=2)
    if "pip install" not in told or len(told.splitlines()) != 1:
        raise SystemExit(f"without its packages the command must say in one line what to install, but said:\n{told}")


def build_wheel(folder: Path) -> Path:
    """Build a wheel of the files that Git knows, and return its path; the checkout stays as it is."""
    source = folder / "source"
    for name in list_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    own = ["--no-build-isolation"] * has_setuptools()
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *own, "-w", str(folder), str(source)], folder)
    return next(folder.glob("*.whl"))


def has_setuptools() -> bool:
    """Tell whether a wheel can be built without a download."""
    try:
        import setuptools  # noqa: PLC0415
    except ModuleNotFoundError:
        return False
    return int(setuptools.__version__.partition(".")[0]) >= 77


def list_files() -> list[str]:
    """Return what a commit of everything would hold."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return [name for name in run(words, ROOT).splitlines() if (ROOT / name).is_file()]


def make_archive(folder: Path) -> Path:
    """Write the archive as the registry's client does: what Git knows, without what `.comfyignore` lists."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    path = folder / "node.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in list_files():
            if not any(name.startswith(line) or fnmatch(name, line) for line in ignored):
                archive.write(ROOT / name, name)
    return path


def try_in_host(pack: Path, base: Path) -> None:
    """Let a ComfyUI import the pack and end."""
    for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True)
    shutil.copytree(pack, base / "custom_nodes" / PACK)
    places = ["--base-directory", str(base), "--user-directory", str(base / "user")]
    told = run([sys.executable, str(COMFYUI / "main.py"), *HOST, *places], base)
    if "IMPORT FAILED" in told or PACK not in told:
        raise SystemExit(f"ComfyUI could not import the archive:\n{told}")
    print(f"imported by the ComfyUI at {COMFYUI}")


def main() -> None:
    """Try both."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build_wheel(folder)
        print(wheel.name, f"{wheel.stat().st_size / 1e6:.1f} MB")
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "site", str(wheel)], folder)
        try_command(folder / "site", folder)
        archive = make_archive(folder)
        print(archive.name, f"{archive.stat().st_size / 1e6:.1f} MB")
        shutil.unpack_archive(archive, folder / "archive" / "vidseg")
        try_command(folder / "archive", folder)
        if (COMFYUI / "main.py").is_file():
            try_in_host(folder / "archive" / "vidseg", folder / "base")


if __name__ == "__main__":
    main()
