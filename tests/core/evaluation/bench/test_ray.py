"""Two workers on one machine, one killed in mid-run: all clips finish, and the tables are the serial ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vidseg.core.command.main import main
from vidseg.core.evaluation.bench import run
from vidseg.core.evaluation.bench.run import BenchProgress, ModelSpec, run_on_ray
from vidseg.core.evaluation.bench.store import Store
from vidseg.core.progress import LineDisplay
from vidseg.core.types import InputError

from .synthetic import write_folders

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray, shut down at the end; its workers stand back for no other process, as they would by themselves."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    yield ray
    ray.shutdown()


def busy_workers() -> list[int]:
    """Return the processes below this one that run a job."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                titles[int(folder.name)] = (folder / "cmdline").read_text()
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [pid for pid, title in titles.items() if title.startswith("ray::_Worker.run")]
    return [pid for pid in found if os.getpid() in lineage(pid, parents)]


def test_more_workers_than_gpus_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    jobs = run_on_ray([], ModelSpec(Path("model")), BenchProgress(LineDisplay(sys.stderr), 0), workers=2)
    with pytest.raises(InputError, match=r"`--workers` must be at most the cluster's GPUs, 1, but got 2"):
        list(jobs)


def lineage(pid: int, parents: dict[int, int]) -> set[int]:
    above: set[int] = set()
    while pid in parents and pid not in above:
        above.add(pid)
        pid = parents[pid]
    return above


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_killed_workers_clip_is_run_again(
    tmp_path: Path, thin_model: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folders(tmp_path / "data", ("a", "c", "d"), frames=3)
    write_folders(root, ("b",), frames=40)  # its worker is busy when the first clip is done
    killed: list[int] = []
    save = Store.save

    def save_and_kill(store: Store, job: Any, result: Any) -> None:
        save(store, job, result)
        if store.path.name == "ray" and not killed:
            deadline = time.monotonic() + 300
            while not killed and time.monotonic() < deadline:
                killed.extend(busy_workers()[:1])
                time.sleep(0.02)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(Store, "save", save_and_kill)
    words = ["--model", str(thin_model), "--device", "cpu", "--max-side", "64"]
    words += ["--set", "cluster.num_clusters=4", "--set", "modulation.step=24", "--set", "modulation.enabled=false"]
    assert main(["bench", "folders", str(root), "--out", str(tmp_path / "local"), *words]) == 0
    again = [*words, "--engine", "ray", "--workers", "2"]
    assert main(["bench", "folders", str(root), "--out", str(tmp_path / "ray"), *again]) == 0
    assert killed
    assert "[100%] 4 of 4 clips" in capsys.readouterr().err
    for name in ("results.md", "main.csv", "main.tex", "clips.csv", "classes.csv"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "local" / name).read_text(), name


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    progress = run.BenchProgress(LineDisplay(sys.stderr), 0)
    with pytest.raises(InputError, match=r"`--engine ray` must find Ray.*pip install 'ray>=2\.40'"):
        list(run_on_ray([], ModelSpec(None), progress))
