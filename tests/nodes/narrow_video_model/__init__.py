"""A node of the tests alone, to be linked into `custom_nodes/`: the host's own loader knows full-size SVD only."""

import sys
from pathlib import Path

REPOSITORY = str(Path(__file__).resolve().parents[3])


class NarrowVideoModel:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "VAE", "CLIP_VISION"), "load", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"path": ("STRING", {})}}

    def load(self, path):
        sys.path.insert(0, REPOSITORY)
        try:
            from tests.nodes.narrow_svd import load_svd  # noqa: PLC0415
        finally:
            sys.path.remove(REPOSITORY)
        return tuple(load_svd(Path(path)))


NODE_CLASS_MAPPINGS = {"NarrowVideoModel": NarrowVideoModel}
