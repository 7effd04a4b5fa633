"""Every node tells people what it is and what it wants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import vidseg
from comfy_api.latest import io
from vidseg.core.config.settings import preset
from vidseg.nodes.host.schema import AUTO

from .graphs import NODE, STAGES, defaults

IDS = {
    *STAGES,
    *("SegmentVideo", "RegionsToMask", "RegionsToMasks", "PreviewRegions", "PreviewFeatures", "NameRegions"),
    *("AssignRegionsFromMask", "SaveRegions", "LoadRegions", "ScoreRegions", "LoadDemoModel"),
    "PickRegions",
    *("CorrectRegions", "SplitInstances", "SaveScene", "LoadScene", "ApplyScene"),
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
    assert schema.category == "VidSeg"
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


def test_sockets_have_types_of_their_own() -> None:
    types = {socket.io_type for node in NODE.values() for socket in node.define_schema().outputs}
    assert {"VIDSEG_FEATURES", "VIDSEG_ANCHOR_LABELS", "VIDSEG_LABELS", io.Mask.io_type} <= types
