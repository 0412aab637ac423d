"""Push and pull through the real client of the hub, against a hub of one page that runs here."""

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.hub import pull, push
from cliffsteer.normalization import Normalization

SHA = "a" * 40
SPEC = FieldSpec((1, 1), [Field("phi", 0), Field("v", 1)])


def identity(content):
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as one model repository needs; files live in ``server.files``."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(self.path)
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.reply({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply({"success": True, "commitUrl": f"{self.address}/commit/{SHA}", "commitOid": SHA})
        elif self.path.startswith("/api/repos/create"):
            self.reply({"url": self.address})
        else:  # the header of the card
            self.reply({"errors": [], "warnings": []})

    def do_GET(self):
        name = self.path.rpartition(f"/resolve/{SHA}/")[2]
        if "/tree/" in self.path:
            files = self.server.files.items()
            self.reply([{"type": "file", "path": p, "size": len(c), "oid": identity(c)} for p, c in files])
        elif self.path.startswith("/api/models/user/smoke"):
            siblings = [{"rfilename": file} for file in self.server.files]
            self.reply({"_id": "1", "id": "user/smoke", "modelId": "user/smoke", "sha": SHA, "siblings": siblings})
        elif name in self.server.files:
            content = self.server.files[name]
            self.reply(content, {"ETag": f'"{identity(content)}"', "X-Repo-Commit": SHA})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    @property
    def address(self):
        return f"http://{self.headers['Host']}/user/smoke"

    def reply(self, content, headers=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.seen = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def saved(tmp_path):
    model = {"name": "csresnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, SPEC, Grid((8, 8)), 1.0, 1, 1, Normalization.identity(SPEC))
    folder = surrogate.save_pretrained(tmp_path / "saved")
    (folder / "notes.txt").write_text("not for others")
    return folder


def run(code, tmp_path, **env):
    env = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "none", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env}
    command = [sys.executable, "-c", f"from cliffsteer.hub import pull, push\n{code}"]
    result = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=100)
    assert not result.returncode, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="needs the extra `hub`")
def test_what_is_pushed_can_be_pulled_elsewhere_and_then_without_a_network(hub, saved, tmp_path):
    endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}"}
    cache = tmp_path / "cache"
    code = f"print(pull('user/smoke', cache={str(cache)!r}))"
    address, folder = run(f"print(push({str(saved)!r}, 'user/smoke'))\n{code}", tmp_path, **endpoint).splitlines()
    assert address.endswith(SHA)
    assert set(hub.files) == {"config.json", "model.safetensors", "README.md"}
    assert any(path.startswith("/api/repos/create") for path in hub.seen)
    assert run(code, tmp_path, HF_HUB_OFFLINE="1") == folder
    frames = torch.randn(1, 1, 4, 8, 8)
    loaded, original = (Surrogate.from_pretrained(path) for path in (folder, saved))
    assert torch.equal(loaded.step(frames), original.step(frames))


def test_only_whole_surrogates_are_pushed(saved, tmp_path):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors` is missing"):
        push(saved, "user/smoke")


def test_without_the_package_there_is_a_sentence(saved, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: push(saved, "user/smoke"), lambda: pull("user/smoke")):
        with pytest.raises(ImportError, match=r"needs huggingface_hub: pip install 'cliffsteer\[hub\]'"):
            call()
