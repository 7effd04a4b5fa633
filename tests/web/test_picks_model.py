"""The picker in the browser and the core agree on what a text picks, and its actions do what they say."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from vidseg.core.regions.points import PointLine, format_points, parse_points, resolve_points
from vidseg.core.types import InputError, LabelMaps, Region

from ..sources import ROOT

NODE_JS = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE_JS is None, reason="no Node.js")

LABELS = (0, 2, 5, 9)
MAPS = torch.tensor([[LABELS], [LABELS[::-1]]], dtype=torch.uint8)  # two frames of one row
CLIP = LabelMaps(MAPS, tuple(Region(label, f"region {label}") for label in LABELS))
AT = dict(zip(LABELS, (0.1, 0.4, 0.6, 0.9), strict=True))
"""Where each label lies in frame 0; it lies at one minus that in frame 1."""
ROWS = [
    {"label": label, "name": f"region {label}", "share": 0.25, "first": 0, "last": 1, "frame": 0, "x": x, "y": 0.5}
    for label, x in AT.items()
]


def answers(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    command = [str(NODE_JS), str(Path(__file__).with_name("picks_driver.mjs")), str(ROOT / "web" / "js")]
    done = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def case(text: str, *steps: list[Any]) -> dict[str, Any]:
    points = parse_points(text)
    found = resolve_points(points, CLIP).found
    rows = [[point.frame, point.x, point.y, label] for point, label in zip(points, found, strict=True)]
    return {"text": text, "regions": ROWS, "found": rows, "steps": steps}


def test_both_find_the_same_regions() -> None:
    generator = random.Random(7)  # noqa: S311
    texts = []
    for _ in range(300):
        points = [
            PointLine(
                generator.choice(["pick", "pick", "name", "hide"]), generator.choice([0, 0, 1, 4]),
                generator.choice(list(AT.values())), 0.5, generator.choice(["", "", "dog", "Dog", "cat", "REGION 5"]),
            )
            for _ in range(generator.randrange(6))
        ]  # fmt: skip
        texts.append(format_points(points))
    for text, answer in zip(texts, answers([case(text) for text in texts]), strict=True):
        picks = resolve_points(parse_points(text), CLIP)
        expected = {(r.label, r.name, r.label in picks.picked, r.label in picks.hidden) for r in picks.labels.regions}
        groups = {(g["leader"], g["name"], g["picked"], g["hidden"]) for g in answer["groups"]}
        assert groups == expected, text
        parts = {label: group["leader"] for group in answer["groups"] for label in group["labels"]}
        assert {label: leader for label, leader in parts.items() if label != leader} == picks.merges, text


LINES = (
    "0 0.5,0.25 black  dog", "  HIDE 12 .5 , 1.", "name 0 1,0 a", "", "# 0 0,0 no", "dog", "0 0.5 0.5", "-1 0,0",
    "1.5 0,0", "0 nan,0", "0 1e-1,0", "0 320,200 dog", "paint 0 0,0", "0 -0.1,0", "0 0x1,0", "7 +0.25,0.125 a,b; c",
)  # fmt: skip


def test_both_read_the_same_lines() -> None:
    cases = [{"text": line, "regions": [], "found": [], "steps": []} for line in LINES]
    for line, answer in zip(LINES, answers(cases), strict=True):
        expected = written_again(line)
        assert answer["wrong"].count(True) == (expected is None), line
        assert answer["formatted"] == (expected or line), line


def written_again(line: str) -> str | None:
    """Return what the core makes of a line, or None if it refuses it."""
    try:
        return format_points(parse_points(line))
    except InputError:
        return None


def point(label: int) -> dict[str, Any]:
    return {"frame": 1, "x": 1 - AT[label], "y": 0.123456}


ACTIONS = {
    "a click picks, another takes back": (
        "", [["toggle", 2, point(2)], ["toggle", 5, point(5)], ["toggle", 2, None]], "1 0.4,0.1235",
    ),
    "a drag picks all at once": ("", [["pickAll", [[0, point(0)], [9, None]]]], "1 0.9,0.1235\n0 0.9,0.5"),
    "a name stays when the pick goes": ("0 0.1,0.5 dog", [["toggle", 0, None]], "name 0 0.1,0.5 dog"),
    "and comes back with it": ("name 0 0.1,0.5 dog", [["toggle", 0, point(0)]], "0 0.1,0.5 dog"),
    "naming does not pick": ("", [["rename", 9, " a  cat ", None]], "name 0 0.9,0.5 a cat"),
    "naming a picked region": ("0 0.1,0.5", [["rename", 0, "dog"]], "0 0.1,0.5 dog"),
    "no name": ("name 0 0.1,0.5 dog\n0 0.4,0.5 cat", [["rename", 0, ""], ["rename", 2, ""]], "0 0.4,0.5"),
    "the same name merges": (
        "0 0.1,0.5 dog", [["rename", 2, "DOG", point(2)]], "0 0.1,0.5 dog\nname 1 0.6,0.1235 DOG",
    ),
    "the name of a region without points merges too": (
        "0 0.1,0.5", [["rename", 0, "Region 5"]], "0 0.1,0.5 Region 5\nname 0 0.6,0.5 Region 5",
    ),
    "merging keeps the name that somebody gave": (
        "0 0.4,0.5 cat\n0 0.6,0.5", [["merge", 0, [2, 5]]], "0 0.4,0.5 cat\n0 0.6,0.5 cat\nname 0 0.1,0.5 cat",
    ),
    "merging regions without names": ("0 0.4,0.5", [["merge", 0, [2]]], "0 0.4,0.5 region 0\nname 0 0.1,0.5 region 0"),
    "splitting": ("0 0.1,0.5 dog\nname 0 0.4,0.5 dog", [["split", 0]], "0 0.1,0.5"),
    "hiding": ("0 0.1,0.5", [["hide", 0, None], ["hide", 9, point(9)]], "hide 0 0.1,0.5\nhide 1 0.1,0.1235"),
    "showing": ("hide 0 0.1,0.5\nhide 0 0.9,0.5 sky", [["show", 0], ["show", 9]], "name 0 0.9,0.5 sky"),
    "picking a hidden region shows it": ("hide 0 0.1,0.5", [["toggle", 0, None]], "0 0.1,0.5"),
    "clearing keeps comments": ("# mine\n0 0.1,0.5\nnonsense", [["clear"]], "# mine"),
}  # fmt: skip


def test_actions_write_the_text_and_can_be_undone() -> None:
    cases = []
    for text, steps, _ in ACTIONS.values():
        good = "\n".join(line for line in text.splitlines() if line != "nonsense")
        cases.append({**case(good, *steps), "text": text})
    for (name, (text, _, expected)), answer in zip(ACTIONS.items(), answers(cases), strict=True):
        assert answer["texts"][-1] == expected, name
        assert answer["undone"][-1] == text, name
        resolve_points(parse_points(expected), CLIP)


ODD = json.loads(Path(__file__).with_name("pick_lines.json").read_text(encoding="utf-8"))
PIECES = (
    "0", "1", ".5", ",", "0.25", "+", "-", "#", "pick", "HIDE", "a,b", "1e5", "_", "00", "ß", "ẞ", "İ", "Σ", "\t",
    "\v", "\f", "\u00a0", "\ufeff", "\u3000", "\u0660", "\u2028", "\x85", "\x1c", "\r", "\n", "\r\n", " ", " ",
)  # fmt: skip
BLANKS = " \t\v\f\u00a0\ufeff"


def test_both_read_odd_lines_as_they_are_written_down() -> None:
    found = answers([{"text": each["line"], "regions": [], "found": [], "steps": []} for each in ODD])
    for each, answer in zip(ODD, found, strict=True):
        assert written_again(each["line"]) == each["written"], ascii(each["line"])
        assert answer["formatted"] == (each["written"] or each["line"]), ascii(each["line"])
        assert (True in answer["wrong"]) == (each["written"] is None), ascii(each["line"])


def test_both_read_random_texts_alike() -> None:
    generator = random.Random(11)  # noqa: S311
    texts = ["".join(generator.choice(PIECES) for _ in range(generator.randrange(14))) for _ in range(2000)]
    texts += [f"0 0.5,0.5{text}" for text in texts[:500]]
    cases = [{"text": text, "regions": [], "found": [], "steps": []} for text in texts]
    for text, answer in zip(texts, answers(cases), strict=True):
        expected = written_again(text)
        assert (True in answer["wrong"]) == (expected is None), ascii(text)
        if expected:
            lines = [line.strip(BLANKS + "\r") for line in answer["formatted"].split("\n")]
            assert [line for line in lines if line and line[0] != "#"] == expected.split("\n"), ascii(text)
