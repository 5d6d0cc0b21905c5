"""A Jupyter server on a course folder, as ``jupyter lab`` starts it, for as long as a test needs it."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "for-this-test-only"
START_LIMIT = 120


@dataclass(frozen=True)
class Server:
    url: str

    def page(self, path: str) -> str:
        return f"{self.url}{path}{'&' if '?' in path else '?'}token={TOKEN}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.page(path), timeout=60) as answer:
            return answer.read().decode()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def put(self, path: str, body: dict) -> None:
        request = urllib.request.Request(self.page(path), json.dumps(body).encode(), method="PUT")
        urllib.request.urlopen(request, timeout=60).close()


@contextlib.contextmanager
def jupyter_server(course: Path, environment: dict[str, str], state: Path) -> Iterator[Server]:
    """Start JupyterLab on a free port of the loopback interface; ``state`` takes its settings and log."""
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = environment | {name: str(state / folder) for name, folder in folders.items()}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
    try:
        yield Server(_address(process, state))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen, state: Path) -> str:
    """Where the server listens, from the file it leaves when it is ready."""
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < START_LIMIT:
        for path in (state / "runtime").glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # half written
                return json.loads(path.read_text())["url"]
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{(state / 'server.log').read_text()[-3000:]}")
