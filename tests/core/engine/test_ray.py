"""A Ray cluster of two nodes on this machine: labels are those of a local run, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.command.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from vidseg.core.engine.cluster import Cluster
from vidseg.core.engine.crew import Crew
from vidseg.core.engine.jobs import JobsProgress
from vidseg.core.engine.model import ModelSpec
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.files.video import write_video
from vidseg.core.types import InputError, LabelMaps

from ..command.test_main import digest, record_of, squares
from ..evaluation.bench.synthetic import write_folders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, one of them with what it takes for a GPU; workers stand back for no other process."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Nodes  # noqa: PLC0415, an optional package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        options = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        nodes = Nodes(initialize_head=True, head_node_args=options)
        nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 * 2**20)
        ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def crew(cluster: Any, thin_model: Path) -> Iterator[Crew]:
    """Workers on both nodes that stay for all tests: to start them takes longer than what they do."""
    hands: list[Crew] = []

    class Kept(Crew):
        def __new__(cls, *_args: object) -> Kept:
            return hands[0] if hands else object.__new__(cls)

        def __init__(self, spec: ModelSpec, cluster: Cluster, most: int) -> None:
            if not hands:
                super().__init__(spec, cluster, most)
                hands.append(self)
            assert spec == self.spec

        def __exit__(self, *_error: object) -> None:
            self.forget()
            while len(self.free) < self.size:
                self.wait(1)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("windows", "jobs"):
            patch.setattr(f"vidseg.core.engine.{module}.Crew", Kept)
        kept = Kept(ModelSpec(describe_model(thin_model), "cpu"), Cluster(2), 2)
        yield kept
        Crew.__exit__(kept)


def busy_workers() -> list[int]:
    """Return the processes below this one that do a call."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                titles[int(folder.name)] = (folder / "cmdline").read_text()
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [pid for pid, title in titles.items() if title.startswith("ray::Worker.do")]
    return [pid for pid in found if os.getpid() in lineage(pid, parents)]


def lineage(pid: int, parents: dict[int, int]) -> set[int]:
    above: set[int] = set()
    while pid in parents and pid not in above:
        above.add(pid)
        pid = parents[pid]
    return above


def kill_a_worker() -> bool:
    """Kill a worker that is in the middle of a call, if there is one."""
    found = busy_workers()
    if found:
        os.kill(found[0], signal.SIGKILL)
    return bool(found)


def after_windows(patch: pytest.MonkeyPatch, actions: dict[int, Callable[[], object]]) -> None:
    """Do something when so many windows are written."""
    write, calls = ResultFolder.write_label_maps, []

    def write_and_act(folder: ResultFolder, start: int, labels: LabelMaps) -> None:
        write(folder, start, labels)
        calls.append(start)
        actions.get(len(calls), int)()

    patch.setattr(ResultFolder, "write_label_maps", write_and_act)


def stop() -> None:
    raise KeyboardInterrupt


WORDS = ["--device", "cpu", "--clusters", "3", "--max-side", "64", "--window", "2", "--set", "modulation.step=24"]
THERE = ["--engine", "ray", "--workers", "2"]


def test_a_killed_worker_and_an_interruption_change_no_label(
    tmp_path: Path, thin_model: Path, crew: Crew, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out, words = tmp_path / "clip.mp4", tmp_path / "ray", ["--model", str(thin_model), *WORDS]
    write_video(clip, squares(12))
    words += ["--quality", "draft", "--set", "cluster.fit_frames=clip"]
    assert main(["segment", str(clip), "--out", str(tmp_path / "local"), *words]) == 0
    killed: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        after_windows(patch, {1: lambda: killed.append(kill_a_worker()), 3: stop})
        assert main(["segment", str(clip), "--out", str(out), *words, *THERE]) == EXIT_INTERRUPTED
    assert killed == [True]
    assert "4 of 12 frames are finished" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        after_windows(patch, {2: stop})
        assert main(["segment", str(clip), "--out", str(out), *words, "--resume"]) == EXIT_INTERRUPTED
    assert record_of(out)["frames_done"] == 6
    assert main(["segment", str(clip), "--out", str(out), *words, *THERE, "--resume"]) == 0
    assert digest(out) == digest(tmp_path / "local")
    assert record_of(out) == record_of(tmp_path / "local")


def test_workers_are_on_both_nodes_and_both_are_used(
    tmp_path: Path, thin_model: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, take = set(), Crew.wait

    def noted(crew: Crew, timeout: float | None = None) -> Any:
        answer = take(crew, timeout)
        if answer is not None:
            used.add(answer.worker)
        return answer

    monkeypatch.setattr(Crew, "wait", noted)
    write_video(tmp_path / "clip.mp4", squares(4))
    words = ["segment", str(tmp_path / "clip.mp4"), "--model", str(thin_model), *WORDS]
    assert main([*words, "--out", str(tmp_path / "local")]) == 0
    assert main([*words, "--out", str(tmp_path / "ray"), *THERE]) == 0
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
    assert used == {0, 1}


def test_clips_whose_worker_is_killed_are_gone_on_with(
    tmp_path: Path,
    thin_model: Path,
    cluster: Any,
    crew: Crew,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, count in (("a", 2), ("b", 24), ("c", 2)):
        write_video(tmp_path / f"{name}.mp4", squares(count))
    (tmp_path / "bad.mp4").write_text("no video")
    words = ["segment", *(str(tmp_path / f"{name}.mp4") for name in ("b", "a", "bad", "c"))]
    words += ["--model", str(thin_model), "--quality", "draft", *WORDS]
    finished, killed, ray = JobsProgress.finished, [], cluster

    def finish_and_kill(progress: JobsProgress, job: Any) -> None:
        finished(progress, job)
        for member in [] if killed else crew._members.values():
            if member.call:  # a process is not known by its title: it answers how far it is, too
                killed.append(member.call.key.name)
                ray.kill(member.actor, no_restart=False)

    with monkeypatch.context() as patch:
        patch.setattr(JobsProgress, "finished", finish_and_kill)
        assert main([*words, "--out", str(tmp_path / "ray"), *THERE]) == EXIT_BAD_INPUT
    assert killed == ["b"]
    rows = capsys.readouterr().out.splitlines()[-5:]  # behind what Ray says of the killed worker
    assert [row.split()[0] for row in rows] == ["clip", "b", "a", "bad", "c"]
    assert rows[1].split()[1] == "24"
    assert "failed: `input` must be a video that plays" in rows[3]
    assert main([*words, "--out", str(tmp_path / "local")]) == EXIT_BAD_INPUT
    for name in "abc":
        assert digest(tmp_path / "ray" / name) == digest(tmp_path / "local" / name)
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == ["a", "b", "c"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "ray"), *THERE]) == EXIT_BAD_INPUT
    assert capsys.readouterr().out.count("finished already") == 3


def test_the_tables_of_the_bench_are_those_of_a_local_run(tmp_path: Path, thin_model: Path, crew: Crew) -> None:
    root = write_folders(tmp_path / "data", ("a", "b"), frames=2)
    words = ["bench", "folders", str(root), "--model", str(thin_model), "--device", "cpu", "--max-side", "64"]
    words += ["--set", "cluster.num_clusters=4", "--set", "modulation.enabled=false"]
    assert main([*words, "--out", str(tmp_path / "local")]) == 0
    assert main([*words, "--out", str(tmp_path / "ray"), *THERE]) == 0
    for name in ("results.md", "main.csv", "main.tex", "clips.csv", "classes.csv"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "local" / name).read_text(), name


def test_more_workers_than_gpus_are_refused(cluster: Any, thin_model: Path) -> None:
    with pytest.raises(InputError, match=r"`workers` must be at most the cluster's GPUs, 1, but got 2"):
        Crew(ModelSpec(describe_model(thin_model)), Cluster(2), 8)
