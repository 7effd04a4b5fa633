"""The folder of a benchmark: one JSON file and one label map per clip and method; finished ones are not run again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...documents import DamageError, anything, maybe, number, read_document, record, table, whole
from ...files.clip import fingerprint_clip
from ...files.disk import write_atomically
from ...files.label_images import make_label_image
from ...files.record import flatten, shorten
from ...files.result_folder import ResultFolder
from ...types import InputError
from ..baselines import MODEL_FREE
from ..supervoxels import RegionScores
from .dataset import BenchClip
from .methods import Job, JobResult, StoredResult
from .tally import TALLY, Tally

CLIPS_FOLDER = "clips"
_FORMAT = 2
"""Version of the clip's files."""
_ENTRIES = {"made by": table(anything), "seconds": number(0, 1e12), "frames": whole(1, 1 << 31), "tally": TALLY}
_MEASURES = dict.fromkeys(RegionScores._fields, number(0, 1e18)) | {
    "regions": whole(1, 256),
    "recall": maybe(number(0, 1)),
}
_RESULT, _NAMELESS = record(_ENTRIES), record({**_ENTRIES, "nameless": record(_MEASURES)})
"""What the file of a clip must hold, and that of a nameless one."""


class Store:
    """Results of one data set with one model, which is known by facts such as its fingerprint and type.

    ``features`` are those of the yardstick, where there is one.
    """

    def __init__(self, path: Path, model: Mapping[str, Any], features: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._models = {"model": dict(model), "features": dict(features or {})}
        self._folder = ResultFolder(path)
        self._content: dict[str, dict[str, str]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder, keep other runs out of it, and check that it can be written."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"`--out` must be a folder, but {self.path} is a file. Choose another name.")
        with self._folder.hold():
            self._folder.prepare(0)
            yield

    def holds(self, job: Job) -> bool:
        """Tell whether a job is finished; refuse one with other settings, model, frames or masks."""
        path = self._record_path(job)
        if not (path.is_file() and path.with_suffix(".png").is_file()):
            return False
        before, now = flatten(self._read(job)["made by"]), flatten(self._describe_origin(job))
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise InputError(
                    f"`--out` must hold results of the same run, but `{name}` of {job.name} is "
                    f"{shorten(now.get(name))} and was {shorten(before.get(name))}. Choose another folder, or replace "
                    "the results with --overwrite."
                )
        return True

    def save(self, job: Job, result: JobResult) -> None:
        """Write what a job left; the JSON file, which counts it as finished, comes last."""
        path = self._record_path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.with_suffix(".png"), lambda part: make_label_image(result.picture).save(part, "PNG"))
        content = {**result.record, "method": job.method.name, "made by": self._describe_origin(job)}
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))

    def identify(self, job: Job) -> str:
        """Return a text that is the same for jobs with the same result: all that decides it, and no names of rows."""
        made_by = self._describe_origin(job)
        made_by["settings"].pop("preset")
        return json.dumps([job.clip.name, made_by], sort_keys=True)

    def load(self, job: Job) -> StoredResult:
        """Return what a finished job left."""
        found = self._read(job)
        seconds = found["seconds"] / found["frames"]
        nameless = RegionScores(**found["nameless"]) if job.nameless else None
        picture = self._record_path(job).with_suffix(".png")
        return StoredResult(job, Tally.from_json(found["tally"]), seconds, picture, nameless)

    def _record_path(self, job: Job) -> Path:
        return self.path / CLIPS_FOLDER / job.method.name / f"{job.clip.name}.json"

    def _read(self, job: Job) -> dict[str, Any]:
        path = self._record_path(job)
        try:
            found = dict(read_document(path, _NAMELESS if job.nameless else _RESULT))
            Tally.from_json(found["tally"])
        except (OSError, ValueError, TypeError) as error:
            reason = error if isinstance(error, DamageError) else "is damaged"
            raise InputError(
                f"`--out` must hold readable results, but {path} {reason}. Remove it to run it again."
            ) from error
        return found

    def _describe_origin(self, job: Job) -> dict[str, Any]:
        """Return what decides the result of a job, as JSON gives it back."""
        made_by = {
            "format": _FORMAT,
            "kind": job.method.kind,
            "model": None if job.method.kind in MODEL_FREE else self._models[job.method.source],
            "frames": [len(job.clip.frames), job.clip.frames[0].name, job.clip.frames[-1].name],
            "masks": sorted(job.clip.masks),
            "content": self._hash_content(job.clip),
            "kind of masks": job.clip.reader,
            "size": job.clip.size,
            "classes": {str(label): name for label, name in job.clip.classes.items()},
            "fps": job.clip.fps,
            "settings": job.settings.to_dict(),
            **({"nameless": True} if job.nameless else {}),
        }
        return dict(json.loads(json.dumps(made_by)))

    def _hash_content(self, clip: BenchClip) -> dict[str, str]:
        """Return the SHA-256 of the content of frames and masks; files are read once, 1 GB in about a second."""
        if clip.name not in self._content:
            masks = [clip.masks[number] for number in sorted(clip.masks)]
            self._content[clip.name] = {"frames": fingerprint_clip(clip.frames), "masks": fingerprint_clip(masks)}
        return self._content[clip.name]
