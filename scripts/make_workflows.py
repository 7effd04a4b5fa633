"""Write the example workflows, their twins for tests, and the subgraph, from a running ComfyUI's node definitions.

Usage: python scripts/make_workflows.py http://127.0.0.1:8188
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from workflow_editing import EDITING
from workflow_examples import EXAMPLES
from workflow_loop import LOOP_NODES, LOOPING
from workflow_notes import CHECKPOINT, VIDEO_CHECKPOINT
from workflow_picking import PICKING
from workflow_subgraph import NAME, subgraph

ROOT = Path(__file__).resolve().parents[1]


def written(path: Path, content: Any) -> None:  # noqa: ANN401
    """Write JSON with a line per entry of the outer lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path.relative_to(ROOT))


def main(address: str) -> None:
    """Write all files."""
    with urllib.request.urlopen(f"{address}/object_info", timeout=60) as response:  # noqa: S310
        info = json.load(response) | LOOP_NODES
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = [CHECKPOINT]
    info["ImageOnlyCheckpointLoader"]["input"]["required"]["ckpt_name"][0] = [VIDEO_CHECKPOINT]
    for name, example in (EXAMPLES | PICKING | EDITING | LOOPING).items():
        graph = example()
        written(ROOT / "example_workflows" / f"{name}.json", graph.to_ui(info))
        written(ROOT / "tests" / "nodes" / "graphs_api" / f"{name}.json", graph.to_api(info))
    written(ROOT / "subgraphs" / f"{NAME}.json", subgraph(info))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
