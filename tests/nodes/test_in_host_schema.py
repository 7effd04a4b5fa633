"""Every node tells people what it is and what it wants."""

from __future__ import annotations

import ast
import asyncio
import re
from typing import Any

import pytest
import vidseg
from comfy_api.latest import io
from vidseg.core.config.settings import SETTINGS, preset, read_setting
from vidseg.nodes.host.schema import AUTO, GROUPS

from ..sources import source_files
from .graphs import NODE, STAGES, defaults
from .host import REPOSITORY

IDS = {
    *STAGES,
    *("SegmentVideo", "RegionsToMask", "RegionsToMasks", "PreviewRegions", "PreviewFeatures", "NameRegions"),
    *("AssignRegionsFromMask", "SaveRegions", "LoadRegions", "ScoreRegions", "LoadDemoModel"),
    "PickRegions",
    *("CorrectRegions", "SplitInstances", "SaveScene", "LoadScene", "ApplyScene"),
    *("FitMaskToModel", "CropClip", "PasteClip", "RegionsToTrack", "TrackToRegions", "RegionsToQuadmask"),
    *("FinishMask", "RegionsToSEGS", "RegionsToTracker", "ExportRegions"),
}


def test_the_entry_point_gives_all_nodes() -> None:
    async def nodes() -> list[Any]:
        return list(await (await vidseg.comfy_entrypoint()).get_node_list())

    assert {node.define_schema().node_id for node in asyncio.run(nodes())} == IDS


@pytest.mark.parametrize("node_id", sorted(IDS))
def test_node_describes_itself(node_id: str) -> None:
    schema = NODE[node_id].define_schema()
    schema.validate()
    assert schema.display_name
    assert schema.category.partition("/")[::2] in {("VidSeg", group) for group in GROUPS}
    assert len(schema.description) > 40
    assert all(len(socket.tooltip or "") > 10 for socket in schema.inputs), node_id
    assert all(output.display_name for output in schema.outputs)
    assert NODE[node_id].GET_NODE_INFO_V1()["name"] == node_id


def test_defaults_are_the_settings() -> None:
    config = preset("default")
    extract, upsample = defaults("ExtractDiffusionFeatures"), defaults("MaskedModulationUpsample")
    assert extract["seed"] == config.sampling.seed
    assert extract["blocks"] == "6, 7, 8"
    assert (extract["start_step"], extract["feature_step"]) == (AUTO, config.feature.step)
    assert (extract["guidance_scale"], upsample["guidance_scale"], upsample["modulation_step"]) == (AUTO, AUTO, AUTO)
    assert extract["video_frames"] == preset("default", "svd").video.frames
    assert extract["steps"] == upsample["steps"] == config.sampling.num_steps
    assert upsample["modulation_factor"] == config.modulation.factor
    assert defaults("KMeansInit")["num_clusters"] == config.cluster.num_clusters
    assert defaults("SceneContextKNN")["num_neighbors"] == config.context.num_neighbors


def test_advanced_inputs_are_marked() -> None:
    info = NODE["ExtractDiffusionFeatures"].GET_NODE_INFO_V1()["input"]["required"]
    assert info["blocks"][1]["advanced"] is True
    assert "advanced" not in info["seed"][1]


def test_the_stages_are_numbered_in_their_order() -> None:
    names = [NODE[node_id].define_schema().display_name for node_id in STAGES]
    assert [name[:2] for name in names] == ["1 ", "2 ", "3 ", "4 ", "5 "]
    assert all(node.define_schema().display_name[0].isalpha() for key, node in NODE.items() if key not in STAGES)


def test_sockets_have_types_of_their_own() -> None:
    types = {socket.io_type for node in NODE.values() for socket in node.define_schema().outputs}
    assert {"VIDSEG_FEATURES", "VIDSEG_ANCHOR_LABELS", "VIDSEG_LABELS", io.Mask.io_type} <= types
    script = (REPOSITORY / "web" / "js" / "socket_colors.js").read_text(encoding="utf-8")
    assert set(re.findall(r"VIDSEG_\w+", script)) == {kind for kind in types if kind.startswith("VIDSEG_")}


SETTING_WIDGETS = [
    (node_id, socket) for node_id in sorted(IDS) for socket in NODE[node_id].define_schema().inputs
    if getattr(socket, "setting", None) in SETTINGS
]  # fmt: skip


@pytest.mark.parametrize(("node_id", "socket"), SETTING_WIDGETS, ids=lambda value: getattr(value, "id", value))
def test_widgets_of_settings_are_made_of_their_fields(node_id: str, socket: Any) -> None:
    about = SETTINGS[socket.setting]
    assert socket.tooltip.startswith(f"{about.text}.")
    if about.choices:
        assert socket.options == [*filter(None, [socket.automatic]), *about.choices]
        assert socket.default == (socket.automatic or about.value)
    elif about.kind in {int, float}:
        default = about.value if socket.automatic is None else socket.automatic
        svd = read_setting(preset("default", "svd"), about.key)
        assert socket.default in {default, svd} if socket.automatic is None else socket.default == default
        assert (socket.min, socket.max) == (min(about.low, socket.default), about.high)
        assert type(socket.default) is type(socket.max) is about.kind


def test_ranges_of_settings_are_typed_nowhere_else() -> None:
    """Widgets with ranges of their own hold no setting: they are none of those that fill settings in any node."""
    filling = {socket.id for _, socket in SETTING_WIDGETS} | {"preset", "quality"}
    typed = set()
    for path in source_files("nodes"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("io.") and call.args:
                named = {word.arg for word in call.keywords} & {"min", "max", "options", "default"}
                typed |= {ast.literal_eval(call.args[0])} if named and isinstance(call.args[0], ast.Constant) else set()
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "setting_input":
                assert not {word.arg for word in call.keywords} & {"min", "max", "default", "tooltip"}, path.name
    assert {"anchor_frame", "opacity", "fps"} <= typed
    assert not typed & filling


def test_settings_are_filled_by_their_widgets_alone() -> None:
    """A node may fix a setting, but fill it with an input only by `read_settings`, which goes by the widgets."""
    for path in source_files("nodes"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if path.parent.name != "host" and isinstance(call, ast.Call):
                values = [keyword.value for keyword in call.keywords if "replace_parts" in ast.unparse(call.func)]
                assert not [part for value in values for part in ast.walk(value) if isinstance(part, ast.Name)]
