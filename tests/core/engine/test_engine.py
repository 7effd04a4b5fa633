"""The parts of the engine without a cluster: stages in pieces, memory that runs out, what workers say of themselves."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.config.settings import Settings
from vidseg.core.engine.cluster import connect_ray
from vidseg.core.engine.jobs import JobsProgress, attempt
from vidseg.core.engine.line import ClipTask, enlarge_window, label_coarse, read_window
from vidseg.core.engine.model import ModelSpec, Workplace
from vidseg.core.engine.sight import Sight, check_sights, look_around
from vidseg.core.engine.wire import pack, unpack
from vidseg.core.engine.worker import call_with_memory
from vidseg.core.files.clip import open_clip
from vidseg.core.files.package import find_version
from vidseg.core.files.video import write_video
from vidseg.core.method.pipeline import ScanState, segment_windows
from vidseg.core.method.windows import split_spans
from vidseg.core.types import InputError

from ..command.test_main import squares

SMALL = {"num_clusters": 3, "modulation__step": 24}
SETTINGS = {
    "sd": Settings.of(quality="fast", length=2, **SMALL),
    "moving": Settings.of(quality="fast", length=4, cluster__motion=0.5, **SMALL),
    "svd": Settings.of(kind="svd", quality="draft", video__frames=4, length=2, **SMALL),
}


@pytest.mark.parametrize("kind", list(SETTINGS))
def test_stages_in_pieces_give_the_labels_of_the_whole(
    kind: str, thin_model: Path, thin_svd_model: Path, tmp_path: Path
) -> None:
    """A clip of SVD whose last window is shifted back; every piece is sent as bytes, by a worker that has a GPU."""
    spec = ModelSpec(describe_model(thin_svd_model if kind == "svd" else thin_model), "cpu")
    write_video(tmp_path / "clip.mp4", squares(6))
    place, settings = Workplace(spec), SETTINGS[kind]
    with open_clip(tmp_path / "clip.mp4") as clip:
        assert place.backbone is not None
        whole = list(segment_windows(place.backbone, clip, settings))
        task, state = ClipTask(tmp_path / "clip.mp4", clip.info, settings, None), None
    found: dict[int, Any] = {}
    read = {span: read_window(place, task, span) for span in reversed(split_spans(6, settings))}
    for span in split_spans(6, settings):
        sent = pickle.loads(pickle.dumps(read[span][1:]))  # noqa: S301, our own
        tokens, rest = (part._replace(device="cuda") for part in sent)
        assert tokens.latents.numel() == rest.queries.numel() == 0
        assert (tokens.flow is not None) == (kind == "moving" and span.frames.start == 0)
        _, coarse, state = label_coarse(place, task, span, tokens, state)
        found[span.kept.start] = enlarge_window(place, task, span, rest, coarse)[1]
    assert isinstance(state, ScanState)
    for window in whole:
        assert torch.equal(found[window.frames.start].maps, window.labels.maps)
        assert found[window.frames.start].regions == window.labels.regions
    place.close()


@pytest.mark.parametrize("tensor", [torch.zeros(2, 0, 3), torch.tensor(2.5, dtype=torch.bfloat16), torch.ones(3) > 0])
def test_tensors_travel_as_they_are(tensor: torch.Tensor) -> None:
    again = unpack(pack(tensor))
    assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(again, tensor)


def test_memory_that_runs_out_makes_batches_smaller_at_this_place(thin_model: Path) -> None:
    place = Workplace(ModelSpec(describe_model(thin_model), "cpu"))
    assert place.backbone is not None
    shape = (4, 8, 8)
    whole, sizes = place.backbone.batch_size(shape), []

    def needs_memory(place: Workplace) -> int:
        sizes.append(place.backbone.batch_size(shape))
        if sizes[-1] > whole // 4:
            raise torch.OutOfMemoryError("out of memory")
        return sizes[-1]

    assert call_with_memory(needs_memory, place) == whole // 4
    assert sizes == [whole, whole // 2, whole // 4]
    assert call_with_memory(needs_memory, place) == whole // 4, "it stays so"
    sizes.clear()
    with pytest.raises(RuntimeError, match="allocate memory"):  # what the CPU says
        call_with_memory(lambda place: needs_memory(place) * torch.empty(1 << 60), place)
    assert sizes[-1] == 1


def test_a_job_that_cannot_be_done_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    class Job:
        name = "clip"

    def fail(*_args: object) -> None:
        raise InputError("`input` must be there.")

    progress = JobsProgress(None, 1)  # type: ignore[arg-type]  # shows nothing
    assert attempt(Job(), fail, Workplace(ModelSpec(None)), progress.watch(Job())).problem == "`input` must be there."


def test_paths_that_a_worker_does_not_see_are_said(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("three")
    place, there = Workplace(ModelSpec(None)), (str(tmp_path / "there"), 5)
    check_sights([look_around(place, [there, (str(tmp_path), None)])])
    for wrong in ((str(tmp_path / "there"), 6), (str(tmp_path / "not"), 5), (str(tmp_path / "not"), None)):
        with pytest.raises(InputError, match=r"does not see .*(there|not), or in another size. Put it on a disk"):
            check_sights([look_around(place, [there, wrong])])
    with pytest.raises(InputError, match=r"workers of this version, .*, but other has 0\.0\. Install the same"):
        check_sights([Sight("other", "0.0", "cpu", ())])
    with pytest.raises(InputError, match=r"`device` must be of one kind on all workers, but got .*cpu and cuda"):
        check_sights([Sight("a", find_version(), "cpu", ()), Sight("b", find_version(), "cuda", ())])


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"`--engine ray` must find Ray.*pip install 'ray>=2\.40'"):
        connect_ray()
