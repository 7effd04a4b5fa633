"""Save, load and export regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..core.documents import DamageError, read_document
from ..core.files.record import FORMAT, PROGRAM, RECORD, list_region_entries
from ..core.files.result_folder import LABELS_FOLDER, RECORD_FILE, ResultFolder
from ..core.files.video import write_id_video
from ..core.progress import format_count
from ..core.regions.export import make_coco
from ..core.regions.labels import count_pixels
from ..core.types import InputError, LabelMaps, Region, quote
from .host.labels import Labels
from .host.paths import OUTPUT_PLACE, check_prefix, find_free_place, find_place, require_place
from .host.progress import NodeProgress
from .host.schema import Labels as LabelsSocket
from .host.schema import labels_input, require_in_range, schema


class SaveRegions(io.ComfyNode):
    """Write label maps and names to the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "files",
            node_id="SaveRegions",
            display_name="Save Regions",
            description="Write the regions to the output folder: one palette PNG per frame (the color's index is the "
            "region's id) and a JSON file with names and colors. Nothing is lost; Load Regions reads it back.",
            search_aliases=["vidseg", "export masks", "label maps", "png sequence"],
            is_output_node=True,
            inputs=[
                LabelsSocket.Input("labels", tooltip="Labels of any VidSeg node; coarse ones are enlarged first."),
                io.String.Input(
                    "filename_prefix",
                    default="vidseg/regions",
                    tooltip="Folder and start of the name below ComfyUI's output folder.",
                ),
            ],
            outputs=[io.String.Output("folder", display_name="folder")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Check the place before the graph runs, unless it is connected."""
        return check_prefix(filename_prefix)

    @classmethod
    def execute(cls, labels: Labels, filename_prefix: str) -> io.NodeOutput:
        """Write the folder."""
        path, saved = find_free_place(filename_prefix, "regions")
        folder = ResultFolder(path, OUTPUT_PLACE)
        progress = NodeProgress()
        full = labels.full(progress)
        folder.prepare(full.maps.numel())
        with folder.whole_or_nothing():
            folder.write_label_maps(0, full, progress)
            folder.write_text(RECORD_FILE, json.dumps(_record(full), indent=1) + "\n")
        return io.NodeOutput(
            saved, ui=ui.PreviewText(f"{format_count(full.num_frames, 'label map')} in output/{saved}")
        )


def _record(labels: LabelMaps) -> dict[str, Any]:
    """Return the content of the JSON file; a part of what the command line writes."""
    return {
        "program": PROGRAM,
        "format": FORMAT,
        "finished": True,
        "frames_done": labels.num_frames,
        **list_region_entries(labels.regions, labels.leaves),
    }


class LoadRegions(io.ComfyNode):
    """Read what Save Regions or the command line wrote."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "files",
            node_id="LoadRegions",
            display_name="Load Regions",
            description="Read regions that Save Regions or the vidseg command wrote, for example after correcting the "
            "PNG files in an image editor.",
            search_aliases=["vidseg", "import masks", "label maps"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="vidseg/regions_00001_",
                    tooltip="Folder below ComfyUI's output or input folder, as Save Regions shows it.",
                )
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None) -> str | float:
        """Tell the host to read again when a file has changed; a connected folder, not known yet, is always read."""
        if not folder:
            return float("nan")
        files = sorted(_found(folder).rglob("*"))
        return str([(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file()])

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Check that the folder is there before the graph runs, unless it is connected."""
        try:
            if folder is not None:
                _found(folder)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Read the folder."""
        result = ResultFolder(_found(folder))
        regions, count = _recorded(result.path / RECORD_FILE)
        _require_files(folder, result.path, [f"{LABELS_FOLDER}/{number:05d}.png" for number in range(count)])
        maps = result.read_all_label_maps(count)
        leaves = result.read_leaves(maps)
        known = {region.label for region in regions}
        used = count_pixels(maps).sum(0).nonzero().flatten().tolist()
        extra = tuple(Region(label, f"region {label}") for label in used if label not in known)
        size = (int(maps.shape[1]), int(maps.shape[2]))
        return io.NodeOutput(Labels(maps, tuple(sorted(regions + extra)), size, leaves))


def _recorded(path: Path) -> tuple[tuple[Region, ...], int]:
    """Return the regions and the number of frames that a JSON file holds."""
    try:
        record = read_document(path, RECORD)
    except (OSError, DamageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"`folder` must hold a readable {path.name}, but this one {reason}. Save the regions again."
        ) from error
    return record["regions"], record["frames_done"]


def _found(folder: str) -> Path:
    """Return the path of a result below the output or input folder, preferably of one that has all that it needs."""
    needed = (RECORD_FILE, LABELS_FOLDER)
    path = find_place(folder, lambda place: all((place / name).exists() for name in needed))
    path = path or require_place("folder", folder, Path.is_dir, "a folder of saved regions", "Save Regions")
    _require_files(folder, path, needed)
    return path


def _require_files(folder: str, path: Path, names: Sequence[str]) -> None:
    """Check that files are in the folder that a person calls ``folder``."""
    missing = [name for name in names if not (path / name).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"`folder` must be a folder of saved regions below ComfyUI's output or input folder, but {quote(folder)} "
            f"has no {missing[0]}{more}. Copy the text that Save Regions shows, or save the regions again."
        )


COCO_FILE, ID_FILE = "coco.json", "ids.mkv"


class ExportRegions(io.ComfyNode):
    """Labels -> files for editors and data tools."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "files",
            node_id="ExportRegions",
            display_name="Export Regions",
            description="Write regions for other programs: palette PNGs, a lossless gray video whose values are the "
            "regions' ids, and a COCO file with names and run lengths.",
            search_aliases=["vidseg", "coco", "rle", "id matte", "cryptomatte", "export masks"],
            is_output_node=True,
            inputs=[
                labels_input(),
                io.String.Input(
                    "filename_prefix",
                    default="vidseg/export",
                    tooltip="Folder and start of the name below ComfyUI's output folder.",
                ),
                io.Float.Input("fps", default=24.0, min=0.1, max=240.0, step=0.01, tooltip="Frames per second."),
            ],
            outputs=[io.String.Output("folder", display_name="folder")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Check the place before the graph runs, unless it is connected."""
        return check_prefix(filename_prefix)

    @classmethod
    def execute(cls, labels: Labels, filename_prefix: str, fps: float) -> io.NodeOutput:
        """Write the folder."""
        require_in_range(cls, fps=fps)
        path, saved = find_free_place(filename_prefix, "export")
        folder, progress = ResultFolder(path, OUTPUT_PLACE), NodeProgress()
        full = labels.full(progress)
        folder.prepare(full.maps.numel())
        with folder.whole_or_nothing():
            folder.write_label_maps(0, replace(full, leaves=None), progress)
            folder.write_file(ID_FILE, lambda path: write_id_video(path, full.maps, fps, progress))
            folder.write_text(COCO_FILE, json.dumps(make_coco(full, progress=progress)) + "\n")
        return io.NodeOutput(saved, ui=ui.PreviewText(f"{COCO_FILE}, {ID_FILE} and PNGs in output/{saved}"))
