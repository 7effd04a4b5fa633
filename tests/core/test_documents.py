"""Any damage of a file is one clear line, quickly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from vidseg.core.checkpoints.sizes import ModelSizes
from vidseg.core.config.parts import ContextConfig
from vidseg.core.documents import MAX_DEPTH, DamageError, maybe, number, parse_document, record, text, whole
from vidseg.core.evaluation.bench.layouts import open_folders, open_vspw
from vidseg.core.files.clip_meta import META, read_optional
from vidseg.core.files.record import RECORD
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.method.pipeline import ScanState
from vidseg.core.method.scene import Scene
from vidseg.core.regions.corrections import parse_corrections
from vidseg.core.regions.points import parse_points
from vidseg.core.types import InputError, Region, quote

from .evaluation.bench.synthetic import write_folders, write_vspw

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHECK = record({"label": whole(0, 255), "name": text()}, fps=maybe(number(0.001, 1000)))

DAMAGE = {
    "nested": (b"[" * 100_000, "nested deeper"),
    "deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
    "huge": (b'{"label": 1e999, "name": ""}', "not finite"),
    "infinite": (b'{"label": 1, "name": "", "fps": -Infinity}', "not finite"),
    "nan": (b'{"label": 1, "name": "", "fps": NaN}', "not finite"),
    "digits": (b'{"label": ' + b"9" * 5000 + b', "name": ""}', "no JSON"),
    "many": (b'{"label": 1' + b"0" * 99 + b', "name": ""}', r"number of about 100 digits for `label`"),
    "latin": ('{"label": 1, "name": "ä"}'.encode("latin-1"), "no JSON"),
    "twice": (b'{"label": 1, "label": 2, "name": ""}', "entry twice"),
    "missing": (b'{"label": 1}', "lacks `name`"),
    "range": (b'{"label": 256, "name": ""}', r"256 for `label`, which must be a whole number in \[0, 255\]"),
    "fraction": (b'{"label": 1.0, "name": ""}', "1.0 for `label`"),
    "truth": (b'{"label": true, "name": ""}', "True for `label`"),
    "zero": (b'{"label": 1, "name": "", "fps": 0}', "0 for `fps`"),
    "long": (b'{"label": 1, "name": "' + b"x" * 10**6 + b'"}', r"'xxx.*\.\.\. for `name`"),
    "list": (b"[]", "must be an object"),
    "empty": (b"", "no JSON"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line(kind: str) -> None:
    content, said = DAMAGE[kind]
    with pytest.raises(DamageError, match=said) as caught:
        parse_document(content, CHECK)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_what_is_whole_is_read() -> None:
    assert parse_document(b'\xef\xbb\xbf{"label": 3, "name": "\xc3\xa4", "other": [1]}', CHECK)["name"] == "ä"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["program", "format", "finished", "frames_done", "regions", "input", "fps", "frame_times", "threads", "classes"]
)


@given(st.dictionaries(KEYS, JSON, max_size=6) | JSON, st.binary(max_size=20))
@QUICK
def test_no_content_is_more_than_damage(tmp_path: Path, value: object, tail: bytes) -> None:
    content = json.dumps(value).encode() + tail
    for check in (RECORD, META, CHECK):
        try_out(lambda check=check: parse_document(content, check), DamageError)
    (tmp_path / "segmentation.json").write_bytes(content)
    try_out(ResultFolder(tmp_path).read_record)
    try_out(lambda: ResultFolder(tmp_path).require_free(overwrite=True, resume=False))
    try_out(lambda: ModelSizes.from_metadata(content.decode("utf-8", "replace")))
    try_out(lambda: read_optional(tmp_path / "segmentation.json", META, "DIR"))


def try_out(read: Callable[[], object], allowed: type[Exception] = InputError) -> None:
    """Read something; only a refusal may come."""
    try:
        read()
    except allowed as error:
        assert len(str(error)) < 2000


@given(JSON, JSON, st.sampled_from([torch.float32, torch.int64, torch.uint8]), st.integers(0, 3))
@QUICK
def test_a_scene_or_state_of_any_content_is_refused_or_whole(
    tmp_path: Path, regions: object, version: object, dtype: torch.dtype, axes: int
) -> None:
    header = json.dumps({"format": version, "next_window": version, "anchor": 0, "regions": regions})
    tensors = {"tokens": torch.zeros((2,) * axes, dtype=dtype), "labels": torch.zeros(2, dtype=torch.int64)}
    (tmp_path / "a").write_bytes(save(tensors, {"vidseg.scene": header, "vidseg.state": header}))
    try_out(lambda: Scene.load(tmp_path / "a"))
    try_out(lambda: ScanState.load(tmp_path / "a", ContextConfig()))


@pytest.mark.parametrize("labels", [[256], [-1], [1, 1], [1.5], ["1"], [True]])
def test_labels_of_a_scene_are_checked(tmp_path: Path, labels: list[Any]) -> None:
    tensors = {"tokens": torch.ones(1, 2), "labels": torch.tensor([1])}
    for wanted, region in ((True, [[1, "a"]]), (False, [[label, "a"] for label in labels])):
        header = json.dumps({"format": 1, "regions": region})
        (tmp_path / "a").write_bytes(save(tensors, {"vidseg.scene": header}))
        if wanted:
            assert Scene.load(tmp_path / "a").regions == (Region(1, "a"),)
        else:
            with pytest.raises(InputError, match="must be a scene file"):
                Scene.load(tmp_path / "a")


@pytest.mark.parametrize("fps", ["0", "-1", "NaN", "Infinity", "1e999", '"10"'])
def test_a_wrong_rate_ends_a_bench_before_any_work(tmp_path: Path, fps: str) -> None:
    write_folders(tmp_path, ("one",), 2)
    (tmp_path / "one" / "meta.json").write_text(f'{{"fps": {fps}}}')
    with pytest.raises(InputError, match=r"`ROOT` must hold readable files, but .*meta\.json holds"):
        open_folders(tmp_path)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/etc", "a\0b"])
def test_clips_of_a_list_lie_in_its_folder(tmp_path: Path, name: str) -> None:
    write_vspw(tmp_path, ("one",), 2)
    (tmp_path / "val.txt").write_text(f"one\n{name}\n")
    with pytest.raises(InputError, match=r"val\.txt names"):
        open_vspw(tmp_path)


@pytest.mark.parametrize(
    "line", ["{} 0.5,0.5 a\n", "0 0.5,0.5 a\n", "split 0 0.5,0.5 a{}\n", "x" * 999_000 + "{}", "9" * 5000]
)
def test_a_megabyte_of_lines_is_read_or_refused_at_once(line: str) -> None:
    lines = "".join(line.format(number) for number in range(999_000 // len(line)))
    try_out(lambda: parse_points(lines))
    try_out(lambda: parse_corrections(lines[:100_000]))


@given(st.text())
@QUICK
def test_any_text_is_points_or_refused(text: str) -> None:
    try_out(lambda: parse_points(text))
    try_out(lambda: parse_corrections(text))
    assert len(quote(text)) <= 90
