"""`mi models` and `mi train` as people type them, with a hub of our own and recipes that take no time."""

import hashlib
import http.server
import importlib
import inspect
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from huggingface_hub import constants

from utils.course import model_commands, paths
from utils.course.cli import main
from utils.models import catalogue, hub
from utils.models.bundled import write_model

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
FILES = {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": b"weights " * 1000, "tokenizer.json": b"{}"}
TOO_MUCH = {"pytorch_model.bin": b"the same once more", "README.md": b"a card"}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for."""

    files = FILES | TOO_MUCH

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/gpt2/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            self.answer(json.dumps(entries).encode())
        elif path.startswith("/api/models/gpt2"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(json.dumps({"id": "gpt2", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/gpt2/resolve/") and (name := path.rsplit("/", 1)[1]) in self.files:
            self.answer(self.files[name])
        else:
            self.answer(b"", 200 if path in ("", "/") else 404)

    def answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def our_hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def mi(tmp_path):
    """Run the command in a process of its own, with an empty hub cache and the settings given."""

    def run(*arguments, **settings):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = outside | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(paths.ROOT)} | settings
        command = [sys.executable, "-m", "utils.course.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path / "weights")
    monkeypatch.setenv("MI_CACHE", str(tmp_path / "packaged"))
    return tmp_path / "weights"


def lines(capsys):
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}


class TestModels:
    def test_a_model_is_fetched_once_and_then_there(self, mi, our_hub, tmp_path):
        before = mi("models", HF_ENDPOINT=our_hub)
        assert "124,439,808   548 MB  can be fetched" in before.stdout
        fetched = mi("models", "--fetch", "gpt2", HF_ENDPOINT=our_hub)
        assert fetched.returncode == 0, fetched.stderr
        folder = Path(fetched.stdout.strip().removeprefix("gpt2 is in "))
        assert folder.is_relative_to(tmp_path) and "%" in fetched.stderr  # the progress bar
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
        again = mi("models", "--fetch", "gpt2", HF_HUB_OFFLINE="1")
        assert again.stdout == fetched.stdout
        after = mi("models", HF_HUB_OFFLINE="1").stdout.splitlines()
        assert [line.split("  ")[-1] for line in after if line.startswith("gpt2")] == [
            "in the local cache",
            "no network",
        ]

    def test_what_the_hub_does_not_have_is_said_in_a_sentence(self, mi, our_hub):
        outcome = mi("models", "--fetch", "gpt2-medium", HF_ENDPOINT=our_hub)
        assert outcome.returncode == 1
        assert outcome.stderr.strip().splitlines()[-1].startswith("mi: The weights of 'gpt2-medium' could not be down")
        assert "Traceback" not in outcome.stderr

    def test_without_a_network_there_is_one_sentence(self, offline, capsys):
        assert main(["models", "--fetch", "gpt2"]) == 1
        assert capsys.readouterr().err == f"mi: 'gpt2' cannot be fetched: {constants.ENDPOINT} does not answer.\n"

    @pytest.mark.parametrize("name", ["gpt3", "course-model"])
    def test_what_cannot_be_fetched_is_answered_with_what_can(self, capsys, name):
        assert main(["models", "--fetch", name]) == 2
        assert (
            f"no pretrained model '{name}'. There are smollm2-135m, efficientnet-lite0, gpt2, gpt2-medium, "
            in capsys.readouterr().err
        )

    def test_shipped_models_are_measured(self, offline, capsys):
        write_model(offline / "course-model", {}, {"a": torch.zeros(30, 50), "b": torch.zeros(7)})
        (offline / "digits-cnn").mkdir()
        (offline / "digits-cnn" / "model.safetensors").write_bytes(b"nonsense")
        assert main(["models"]) == 0
        listed = lines(capsys)
        assert list(listed) == ["name", *catalogue.SHIPPED, *catalogue.PACKAGED, *catalogue.PRETRAINED]
        assert listed["course-model"].endswith(" 1,507  6.16 kB  shipped")
        assert listed["modular-addition"].endswith("?  missing") and listed["digits-cnn"].endswith("?  damaged")
        assert listed["gpt2-medium"].endswith("MIT         hub     354,823,168  1.52 GB  no network")
        assert listed["smollm2-135m"].endswith("Apache-2.0  index   134,515,008  92.9 MB  not fetched yet")

    def test_the_list_does_not_wait_for_torch(self):
        code = "import sys\nfrom utils.models.catalogue import standings\nstandings()\nprint('torch' in sys.modules)"
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(paths.ROOT)}
        outcome = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert outcome.stdout.strip() == "False"

    def test_stopping_a_download_is_no_crash(self, monkeypatch, capsys):
        def stop(repo, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(hub, "fetch", stop)
        assert main(["models", "--fetch", "gpt2"]) == 130
        assert capsys.readouterr().err == "mi: Stopped. The same command goes on from where it was.\n"


class TestTrain:
    @pytest.fixture
    def calls(self, monkeypatch, tmp_path):
        """A recipe that notes what it was called with, and does what it is told to."""
        calls, module = [], ModuleType("a_recipe_without_training")

        def make(folder, *, seed=0):
            calls.append((folder, seed))
            if module.then:
                raise module.then
            folder.mkdir(parents=True)

        module.make, module.then = make, None
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for name, recipe in catalogue.RECIPES.items():
            monkeypatch.setitem(catalogue.RECIPES, name, catalogue.Recipe(module.__name__, recipe.resumes))
        monkeypatch.setattr(paths, "ROOT", tmp_path)
        monkeypatch.setattr(model_commands, "BUNDLED", tmp_path / "weights")
        calls.append(module)
        return calls

    def test_a_learners_run_leaves_the_shipped_weights_alone(self, calls, tmp_path, capsys):
        assert main(["train", "digits-cnn", "--seed", "5"]) == 0
        folder = tmp_path / "build" / "models" / "digits-cnn-seed-5"  # each seed's progress and result by itself
        assert calls[1:] == [(folder, 5)]
        assert capsys.readouterr().out == f"digits-cnn is in {folder}\n"

    def test_an_author_ships_seed_0(self, calls, tmp_path):
        assert main(["train", "modular-addition", "--ship"]) == 0
        assert calls[1:] == [(tmp_path / "weights" / "modular-addition", 0)]

    @pytest.mark.parametrize(
        ("name", "then"), [("course-model", "goes on from where it was"), ("digits-cnn", "starts again")]
    )
    def test_stopping_is_one_line(self, calls, capsys, name, then):
        calls[0].then = KeyboardInterrupt()
        assert main(["train", name]) == 130
        assert capsys.readouterr().err == f"mi: Stopped. The same command {then}.\n"

    def test_a_disk_that_cannot_be_written_is_said(self, calls, capsys):
        calls[0].then = OSError(28, "No space left on device", "model.part")
        assert main(["train", "digits-cnn"]) == 1
        assert (
            "digits-cnn could not be written: [Errno 28] No space left on device: 'model.part'"
            in capsys.readouterr().err
        )

    def test_an_unknown_name_is_answered_with_the_known_ones(self, capsys):
        assert main(["train", "gpt2"]) == 2
        assert "no recipe for 'gpt2'. There are course-model, digits-cnn, " in capsys.readouterr().err


@pytest.mark.parametrize("name", catalogue.RECIPES)
def test_every_recipe_can_be_called(name):
    parameters = inspect.signature(importlib.import_module(catalogue.RECIPES[name].module).make).parameters
    assert list(parameters) == ["folder", "seed"] and parameters["seed"].default == 0
