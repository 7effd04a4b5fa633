"""One run at a time in a folder: a lock that the system releases when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..types import SettingError
from .disk import Place, explain_unwritable

LOCK_FILE = ".vidseg-lock"
_TAKEN = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""What systems say of a file that another process has locked; others mean that the disk knows no locks."""


@contextlib.contextmanager
def hold_folder(folder: Path, place: Place) -> Iterator[None]:
    """Make a folder and keep other runs out of it; what was made and stays empty is removed again."""
    made = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]
    with explain_unwritable(folder, place):
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(folder / LOCK_FILE, folder, place)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if os.name == "nt":
                file.close()  # an open file cannot be removed there
            (folder / LOCK_FILE).unlink(missing_ok=True)
        file.close()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _lock(path: Path, folder: Path, place: Place) -> IO[bytes]:
    """Return the locked file, which names its owner."""
    while True:
        file = path.open("a+b")
        try:
            _claim(file)
        except OSError as error:
            file.seek(0)
            owner = file.read(20).decode("ascii", "replace").strip() if os.name != "nt" else ""
            file.close()
            if error.errno not in _TAKEN:
                raise
            got = f"{folder}, where process {owner or '(unknown)'} is at work"
            remedy = "Wait for it, or choose another folder"
            raise SettingError(place.setting, "belong to one run", got, remedy) from None
        with contextlib.suppress(FileNotFoundError):
            if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(str(os.getpid()).encode())
                file.flush()
                return file
        file.close()  # the run before removed it meanwhile


def _claim(file: IO[bytes]) -> None:
    """Lock a file, or raise; where the disk knows no locks, go on without."""
    if os.name == "nt":
        import msvcrt  # noqa: PLC0415, Windows only

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        return
    import fcntl  # noqa: PLC0415, not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
