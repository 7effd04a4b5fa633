"""The picker cuts regions from leaves as the core does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from vidseg.core.regions.cutting import cut_regions, group_leaves, split_region
from vidseg.core.regions.labels import tabulate_regions
from vidseg.core.regions.tree import build_tree, cut_tree
from vidseg.core.types import LabelMaps, Region

NODE = shutil.which("node")
JS = Path(__file__).parents[2] / "web" / "js" / "picker_cut.js"
SCRIPT = """
const { cutRegions, groupPixels } = await import(process.argv[1]);
const { readFileSync } = await import("node:fs");
const { content, cuts, pixels } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cuts.map(([number, splits]) => {
  const { regions, owners } = cutRegions(content, number, splits);
  return { regions, owners, labels: [...groupPixels(Uint8Array.from(pixels), owners)] };
})));
"""
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


def rows(labels: LabelMaps) -> list[dict[str, Any]]:
    return [row._asdict() | {"color": f"#{row.label:06x}"} for row in tabulate_regions(labels)]


def test_numbers_names_places_and_pixels_equal_those_of_the_core() -> None:
    generator = torch.Generator().manual_seed(3)
    tree, _ = build_tree(torch.randn(12, 4, generator=generator), torch.randint(1, 9, (12,), generator=generator))
    maps = torch.randint(0, 14, (3, 8, 9), generator=generator).to(torch.uint8)  # two leaves were found later
    owners = (*cut_tree(tree, 4), 40, 40)
    regions = (Region(0, "dog"), Region(1, "region 1"), Region(2, "grass"), Region(3, "region 3"), Region(40, "ball"))
    given = group_leaves(maps, tree, owners, regions, (8, 9))
    leaves = LabelMaps(maps, tuple(Region(leaf, f"region {leaf}") for leaf in range(14)))
    content = {
        "regions": rows(given),
        "leaves": {"parents": tree.parents, "owners": owners, "rows": rows(leaves)},
    }
    cuts = [(number, splits) for number in range(15) for splits in ([], [3], [3, 3, 0], [13])]
    sent = json.dumps({"content": content, "cuts": cuts, "pixels": maps[0].flatten().tolist()})
    command = [str(NODE), "--input-type=module", "--eval", SCRIPT, JS.as_uri()]
    answer = json.loads(subprocess.run(command, input=sent, capture_output=True, text=True, check=True).stdout)
    for (number, splits), found in zip(cuts, answer, strict=True):
        expected = cut_regions(given, number) if number else given
        for leaf in splits:
            expected = split_region(expected, expected.leaves.owners[leaf])
        assert found["owners"] == list(expected.leaves.owners)
        assert [(row["label"], row["name"]) for row in found["regions"]] == [tuple(each) for each in expected.regions]
        assert found["labels"] == expected.maps[0].flatten().tolist()
        for row, told in zip(found["regions"], tabulate_regions(expected), strict=True):
            assert (row["first"], row["last"]) == (told.first, told.last)
            assert row["share"] == pytest.approx(told.share)
            at = int(row["y"] * 8), int(row["x"] * 9)
            assert int(expected.maps[row["frame"]][at]) == row["label"]
