from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vidseg.core.backbones.protocol import BackboneInfo
from vidseg.core.config.parts import ContextConfig
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.files.clip import ClipInfo
from vidseg.core.files.disk import OUT, Place, explain_unwritable, write_atomically
from vidseg.core.files.record import (
    RunDescription,
    RunResult,
    list_colors,
    list_versions,
    make_record,
    require_same_run,
)
from vidseg.core.files.result_folder import STATE_FILE, ResultFolder
from vidseg.core.method.context import SceneContext
from vidseg.core.method.pipeline import ScanState
from vidseg.core.regions.palette import PALETTE
from vidseg.core.types import AnchorLabels, InputError, LabelMaps, Region

CLIP = ClipInfo("clip.mp4", 3, (4, 6), 25.0, None, "f" * 64)
MODEL = BackboneInfo("model.safetensors", "sd", "epsilon", "a" * 64)
RUN = RunDescription(CLIP, MODEL, "cpu", "float32", Settings(), None, None)
REGIONS = (Region(0, "road"), Region(3, "sky"))
MAPS = torch.tensor([0, 3, 255], dtype=torch.uint8)[:, None, None].repeat(1, 4, 6)
LABELS = LabelMaps(MAPS, REGIONS)


def result(areas: dict[int, int] | None = None, *, frames: int = 0, finished: bool = False) -> RunResult:
    return RunResult(REGIONS, None, [(areas or {}).get(label, 0) for label in range(256)], frames, finished)


def test_label_maps_are_palette_images_whose_index_is_the_label(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "deep" / "out")
    folder.prepare(MAPS.numel())
    folder.write_label_maps(7, LABELS)
    names = sorted(path.name for path in folder.labels.iterdir())
    assert names == ["00007.png", "00008.png", "00009.png"]
    with Image.open(folder.labels / "00008.png") as image:
        assert image.mode == "P"
        assert np.all(np.asarray(image) == 3)
        assert image.convert("RGB").getpixel((0, 0)) == tuple(PALETTE[3].tolist())


def test_label_maps_come_back(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.write_label_maps(0, LABELS)
    assert torch.equal(torch.stack(list(folder.read_label_maps(3))), MAPS)
    with pytest.raises(InputError, match="does not exist"):
        list(folder.read_label_maps(4))


def test_a_failed_write_leaves_the_earlier_file_whole(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.write_file("a.txt", lambda path: path.write_text("whole") and None)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"No space left on device. Free space, then continue with `resume`\."):
        folder.write_file("a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_earlier_result_is_in_the_way(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.require_free(overwrite=False, resume=False)
    (tmp_path / "notes.txt").write_text("somebody's")
    folder.labels.mkdir()
    folder.require_free(overwrite=False, resume=False)
    folder.write_label_maps(0, LABELS)
    folder.write_record(RUN, result())
    with pytest.raises(InputError, match="`overwrite`"):
        folder.require_free(overwrite=False, resume=False)
    folder.require_free(overwrite=True, resume=False)
    folder.require_free(overwrite=False, resume=True)
    (folder.labels / "mine.png").write_text("somebody's")
    folder.start_anew()
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["mine.png", "notes.txt"]


@pytest.mark.parametrize("name", ["labels/00000.png", "labels/a.jpg", "overlay.mp4", "legend.png"])
def test_files_of_other_origin_are_neither_replaced_nor_continued(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / name).write_text("somebody's")
    for overwrite, resume in ((False, False), (True, False), (False, True)):
        with pytest.raises(InputError, match=rf"holds {name} and no segmentation\.json. Choose another"):
            ResultFolder(tmp_path).require_free(overwrite=overwrite, resume=resume)


def test_the_record_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person stops while an earlier result is removed is still known as a result."""
    folder, gone = ResultFolder(tmp_path), []
    folder.write_label_maps(0, LABELS)
    folder.write_record(RUN, result())
    monkeypatch.setattr(Path, "unlink", lambda path, **_: gone.append(path.name))
    folder.start_anew()
    assert gone[-1] == "segmentation.json"
    assert "00002.png" in gone


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="but got the file"):
        ResultFolder(tmp_path / "out").require_free(overwrite=False, resume=False)
    with pytest.raises(InputError, match="must be writable"):
        ResultFolder(tmp_path / "out" / "below").prepare(1)
    with pytest.raises(InputError, match="must be writable"):
        ResultFolder(tmp_path / "out" / "below").require_writable()
    ResultFolder(tmp_path / "new" / "out").require_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MB free, but .* has \S+ MB. Free space"):
        ResultFolder(tmp_path).prepare(10**18)


@pytest.mark.parametrize(
    ("code", "place", "said"),
    [
        (errno.EROFS, OUT, "`out` must be writable.*may write to"),
        (errno.EDQUOT, OUT, "`out` must be writable.*`resume`"),
        (errno.ENOSPC, Place("prefix", "Free space, then run again"), r"`prefix` must.*run again\.$"),
    ],
)
def test_what_cannot_be_written_names_the_remedy(tmp_path: Path, code: int, place: Place, said: str) -> None:
    with pytest.raises(InputError, match=said), explain_unwritable(tmp_path, place):
        raise OSError(code, "why")


@pytest.mark.parametrize("lasting", [True, False])
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, lasting: bool) -> None:
    write_atomically(tmp_path / "a", lambda path: path.write_text("whole"), lasting=lasting)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", fail, lasting=lasting)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "whole"


def test_the_state_is_written_whole(tmp_path: Path) -> None:
    config = ContextConfig()
    context = SceneContext.from_anchor(torch.rand(8, 3), torch.arange(8), config)
    folder = ResultFolder(tmp_path)
    state = ScanState(2, AnchorLabels(0, torch.zeros(2, 4, dtype=torch.int64), REGIONS), context)
    folder.write_file(STATE_FILE, lambda path: path.write_bytes(state.to_bytes()))
    back = ScanState.load(folder.state, config)
    assert back.next_window == 2
    assert back.anchor_labels.regions == REGIONS
    assert torch.equal(back.context.tokens, context.tokens)
    assert [path.name for path in tmp_path.iterdir()] == [folder.state.name]


def test_the_record_is_enough_to_repeat_the_run() -> None:
    record = json.loads(make_record(RUN, result({0: 44, 3: 4}, frames=2, finished=True)))
    assert record["finished"] is True
    assert record["frames_done"] == 2
    assert record["settings"] == json.loads(json.dumps(Settings().to_dict()))
    assert record["seed"] == Settings().sampling.seed
    assert record["model"]["fingerprint"] == MODEL.fingerprint
    assert record["input"]["fingerprint"] == CLIP.fingerprint
    assert record["fps"] == 25.0
    assert record["regions"][1] == {"label": 3, "name": "sky", "color": list_colors(REGIONS)[3], "area": 4}
    assert record["frame_names"] is None
    assert {"python", "torch", "av"} <= set(record["versions"]) == set(list_versions())


def test_is_finished_only_after_the_end(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    assert not folder.is_finished()
    folder.write_record(RUN, result())
    assert not folder.is_finished()
    folder.write_record(RUN, result(finished=True))
    assert folder.is_finished()
    (tmp_path / "segmentation.json").write_text("{ broken")
    assert not folder.is_finished()


@pytest.mark.parametrize(
    ("changed_run", "name"),
    [
        (
            RUN._replace(settings=replace_parts(Settings(), cluster={"num_clusters": 7})),
            "settings.cluster.num_clusters",
        ),
        (RUN._replace(settings=replace_parts(Settings(), feature={"blocks": (7,)})), "settings.feature.blocks"),
        (RUN._replace(model=MODEL._replace(fingerprint="b" * 64)), "model.fingerprint"),
        (RUN._replace(model=None, baseline="color"), "baseline"),
        (RUN._replace(clip=CLIP._replace(fingerprint="0" * 64)), "input.fingerprint"),
        (RUN._replace(dtype="float16"), "model.dtype"),
        (RUN._replace(anchor_mask="c" * 64), "anchor_mask"),
    ],
)
def test_another_run_may_not_continue(changed_run: RunDescription, name: str) -> None:
    with pytest.raises(InputError, match=f"`{name}` of .*, which was .*`overwrite`"):
        require_same_run(make_record(RUN, result()), changed_run)


def test_the_same_run_may_continue_under_other_names() -> None:
    renamed = RUN._replace(clip=CLIP._replace(name="moved.mp4"), model=MODEL._replace(name="other.safetensors"))
    require_same_run(make_record(RUN, result()), renamed)
    require_same_run(make_record(RUN, result()), RUN._replace(settings=Settings(preset="paper")))
    with pytest.raises(InputError, match="damaged"):
        require_same_run("{ broken", RUN)
