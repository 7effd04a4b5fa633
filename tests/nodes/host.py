"""Find ComfyUI, import it on the CPU, and start it as a server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-VidSeg"
START_SECONDS, RUN_SECONDS = 300, 900

Graph = dict[str, dict[str, Any]]


def host_path() -> Path | None:
    """Return the folder of ComfyUI: $COMFYUI_PATH, the one whose custom_nodes this pack is in, or ~/comfy/ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    candidates = [Path(named)] if named else [REPOSITORY.parents[1], Path.home() / "comfy" / "ComfyUI"]
    return next((path for path in candidates if (path / "main.py").is_file() and (path / "comfy").is_dir()), None)


def import_host() -> str:
    """Import the host for tests in this process; return why that is impossible, or an empty string."""
    path = host_path()
    if path is None:
        return "no ComfyUI: set COMFYUI_PATH to its folder"
    sys.path.insert(0, str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import comfy.options  # noqa: PLC0415
            from comfy.cli_args import args  # noqa: PLC0415

            args.cpu = True
            import comfy.samplers  # noqa: F401, PLC0415
            import comfy_api.latest  # noqa: F401, PLC0415
            import folder_paths  # noqa: F401, PLC0415
        except ModuleNotFoundError as error:
            return f"ComfyUI's requirements are not in this environment ({error}): run pytest with ComfyUI's Python"
    return ""


class Server:
    """A running ComfyUI.

    Attributes:
        base: its base directory, with `input`, `output` and `custom_nodes`.
        log: what it printed.
        offered: its answer to `/object_info` while its folders were empty.
    """

    def __init__(self, base: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.base, self.log = base, log
        self.process = process
        self.offered: dict[str, Any] = {}
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def fetch(self, path: str, data: object = None) -> bytes:
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}", data=body, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return bytes(response.read())

    def widgets(self, kind: str) -> dict[str, Any]:
        """Return the widgets of a kind of node, as they are in a new node."""
        spec = self.get(f"/object_info/{kind}")[kind]["input"]["required"]
        return {name: entry[1]["default"] for name, entry in spec.items() if len(entry) > 1 and "default" in entry[1]}

    def submit(self, graph: Graph, *wanted: str) -> dict[str, Any]:
        """Queue a graph, or what it needs for some nodes; returns the answer, with ``prompt_id`` or ``node_errors``."""
        body = {"prompt": graph, **({"partial_execution_targets": wanted} if wanted else {})}
        try:
            return dict(json.loads(self.fetch("/prompt", body)))
        except urllib.error.HTTPError as error:
            with error:
                return dict(json.loads(error.read()))

    async def started(self, graph: Graph, node: str) -> str:
        """Queue a graph, wait until a node reports progress, and return the graph's ``prompt_id``."""
        import aiohttp  # noqa: PLC0415, the host's

        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.address}/ws?clientId=test") as socket:
            body = {"prompt": graph, "client_id": "test"}
            prompt_id = str(json.loads(self.fetch("/prompt", body))["prompt_id"])
            async for message in socket:
                event = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
                if event.get("type") == "progress" and event["data"]["node"] == node:
                    return prompt_id
        raise ConnectionError(prompt_id)

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """Wait for a graph and return its history."""
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if history:
                return dict(history[prompt_id])
            time.sleep(0.2)
        raise TimeoutError(prompt_id)

    def run(self, graph: Graph) -> dict[str, Any]:
        """Run a graph that must succeed and return its outputs by node."""
        answer = self.submit(graph)
        assert "prompt_id" in answer, answer
        history = self.wait(answer["prompt_id"])
        assert history["status"]["status_str"] == "success", messages(history)
        return dict(history["outputs"])

    def resident_bytes(self) -> int:
        """Return the memory that the server's process holds."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def messages(history: dict[str, Any]) -> str:
    """Return what the host says about a run that failed."""
    return "\n".join(
        f"{body.get('node_type')}: {body.get('exception_message')}"
        for kind, body in history["status"]["messages"]
        if kind.startswith("execution_") and "exception_message" in body
    )


@contextmanager
def running_server(
    base: Path, pack: Path, *options: str, prepare: Callable[[Path], None] | None = None
) -> Iterator[Server]:
    """Start ComfyUI on a clean base directory with this pack alone, and ``--cpu`` or other ``options``.

    ``prepare`` is called with the base directory before the start.
    """
    path = host_path()
    assert path is not None
    for name in ("custom_nodes", "models", "input", "output", "temp", "user", "home"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / PACK).symlink_to(pack)
    if prepare is not None:
        prepare(base)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", *(options or ("--cpu",)), "--port", str(port),
        "--listen", "127.0.0.1", "--disable-api-nodes", "--base-directory", str(base),
        "--user-directory", str(base / "user"), "--database-url", "sqlite:///:memory:", "--disable-auto-launch",
        "--dont-print-server",
    ]  # fmt: skip
    log = base / "server.log"
    environment = {**os.environ, "HOME": str(base / "home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=path, stdout=output, stderr=output, env=environment)
    server = Server(base, port, process, log)
    try:
        _wait_for(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_for(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        try:
            server.get("/system_stats")
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("the server did not start")
