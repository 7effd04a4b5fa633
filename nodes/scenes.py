"""Scenes of one clip for other clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..core.config.settings import preset
from ..core.files.disk import explain_unwritable, write_atomically
from ..core.method.scene import Scene, choose_scene, label_by_scene
from ..core.progress import format_count
from ..core.types import Features, InputError
from .host.labels import Labels
from .host.paths import OUTPUT_PLACE, check_prefix, find_free_place, require_place
from .host.progress import NodeProgress
from .host.schema import Labels as LabelsSocket
from .host.schema import advanced, features_input, labels_input, read_settings, schema, setting_input, tell_widgets

SceneSocket = io.Custom("VIDSEG_SCENE")
SUFFIX = ".safetensors"
_DEFAULT = preset("default")


class SaveScene(io.ComfyNode):
    """Keep regions and names of a clip for other clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "scenes",
            node_id="SaveScene",
            display_name="Save Scene",
            description="Keep the regions of a clip, their names and what they look like, so that the next part, "
            "another take or another clip gets the same regions. Writes a small file, and gives the scene on a wire.",
            search_aliases=["vidseg", "reuse regions", "chunk", "next take", "memory", "export scene"],
            is_output_node=True,
            inputs=[
                labels_input(),
                features_input(),
                io.String.Input(
                    "filename_prefix",
                    default="vidseg/scene",
                    tooltip="Folder and start of the name below ComfyUI's output folder; empty writes no file.",
                ),
            ],
            outputs=[SceneSocket.Output("scene", display_name="scene"), io.String.Output("file", display_name="file")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Check the place before the graph runs, unless it is connected."""
        return check_prefix(filename_prefix)

    @classmethod
    def execute(cls, labels: Labels, features: Features, filename_prefix: str) -> io.NodeOutput:
        """Choose cells that stand for the regions, and write them."""
        scene = choose_scene(features, labels)
        if not filename_prefix.strip():
            return io.NodeOutput(scene, "", ui=ui.PreviewText("kept on the wire alone"))
        path, saved = find_free_place(filename_prefix, "scene", SUFFIX)
        with explain_unwritable(path, OUTPUT_PLACE):
            write_atomically(path, lambda part: part.write_bytes(scene.to_bytes()))
        return io.NodeOutput(
            scene, saved, ui=ui.PreviewText(f"{format_count(len(scene.regions), 'region')} in output/{saved}")
        )


class LoadScene(io.ComfyNode):
    """Read what Save Scene wrote."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "scenes",
            node_id="LoadScene",
            display_name="Load Scene",
            description="Read a scene that Save Scene wrote: regions with their names, to be applied to another clip.",
            search_aliases=["vidseg", "reuse regions", "import scene"],
            inputs=[
                io.String.Input(
                    "file",
                    default="vidseg/scene_00001_.safetensors",
                    tooltip="File below ComfyUI's output or input folder, as Save Scene shows it.",
                )
            ],
            outputs=[SceneSocket.Output("scene", display_name="scene")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str | float:
        """Tell the host to read again when the file has changed; a connected one, not known yet, is always read."""
        if not file:
            return float("nan")
        status = _found(file).stat()
        return f"{status.st_mtime_ns} {status.st_size}"

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        """Check that the file is there before the graph runs, unless it is connected."""
        try:
            if file is not None:
                _found(file)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """Read the file."""
        return io.NodeOutput(Scene.load(_found(file)))


class ApplyScene(io.ComfyNode):
    """Label a clip by the scene of another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "scenes",
            node_id="ApplyScene",
            display_name="Apply Scene",
            description="Give a clip the regions and names of a scene: the next part, another take, another clip of "
            "the same place. Takes the place of K-Means Init, Scene Context KNN and Correspondence Refine. In a loop, "
            "the scene that it gives goes to the next part.",
            search_aliases=["vidseg", "reuse regions", "chunk", "transfer labels", "loop", "long video"],
            inputs=[
                features_input(),
                SceneSocket.Input(
                    "scene",
                    tooltip="From Save Scene or Load Scene, made with the same model; in a loop, the value that Start "
                    "Loop hands on.",
                ),
                setting_input("window_length", "window.length"),
                advanced(setting_input("num_neighbors", "context.num_neighbors")),
                advanced(setting_input("refine", "refinement.enabled")),
            ],
            outputs=[
                LabelsSocket.Output("labels", display_name="labels"),
                SceneSocket.Output("next_scene", display_name="scene"),
            ],
        )

    @classmethod
    @tell_widgets
    def execute(cls, features: Features, scene: Scene, **widgets: Any) -> io.NodeOutput:
        """Label the clip."""
        settings = read_settings(cls, _DEFAULT, widgets)
        coarse, after = label_by_scene(scene, features, settings, progress=NodeProgress())
        return io.NodeOutput(Labels(coarse.maps, coarse.regions, coarse.frame_size, coarse.leaves), after)


def _found(file: str) -> Path:
    """Return the path of a scene file below the output or input folder."""
    return require_place("file", file, Path.is_file, "a scene", "Save Scene")
