"""A stand-in of the Hugging Face hub's HTTP API on this machine: repositories, commits, large files, downloads.

As much of it as huggingface_hub asks for when a folder is pushed and a file is fetched. Every commit is kept.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_stand_in"
Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a list of (commit, files); and the large files by their SHA-256."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[tuple[str, Files]]] = {}
        self.large: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.agents: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def at(self, name: str, revision: str) -> tuple[str, Files] | None:
        """A commit and its files: the newest for `main`."""
        commits = self.repositories.get(name, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((commit for commit in commits if commit[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = self._parts()
        if "resolve" in parts:
            self._resolve(parts)
        elif parts[:2] == ["api", "models"] and len(parts) in (4, 6):
            found = self.server.at("/".join(parts[2:4]), parts[5] if len(parts) == 6 else "main")
            known = "/".join(parts[2:4]) in self.server.repositories
            sha = found[0] if found is not None else "0" * 40
            self._answer(200 if known else 404, {"id": "/".join(parts[2:4]), "sha": sha, "siblings": []})
        else:
            self._answer(404, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body, parts = self._body(), self._parts()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "who are you?"})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:  # of the card
            self._answer(200, {"errors": [], "warnings": []})
        elif "preupload" in parts:
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": [{**file, "shouldIgnore": False} for file in files]})
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "commit" in parts:
            self._commit("/".join(parts[2:4]), body)
        else:
            self._answer(404, {})

    def do_PUT(self) -> None:
        content = self._body()
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, {})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        name = name if "/" in name else f"anna/{name}"
        there = name in self.server.repositories
        self.server.repositories.setdefault(name, [])
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(name)
        self._answer(409 if there else 200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def _commit(self, name: str, body: bytes) -> None:
        commits = self.server.repositories[name]
        files = dict(commits[-1][1]) if commits else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = hashlib.sha1(body + str(len(commits)).encode()).hexdigest()
        commits.append((commit, files))
        url = f"{self.server.url}/{name}/commit/{commit}"
        self._answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _resolve(self, parts: list[str]) -> None:
        """/USER/NAME/resolve/REVISION/FILE"""
        name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        self.server.agents.add(str(self.headers.get("User-Agent")))
        found = self.server.at(name, revision)
        if found is not None and file in found[1]:
            commit, content = found[0], found[1][file]
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
        elif name not in self.server.repositories:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif found is None:
            self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        else:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]})

    def _parts(self) -> list[str]:
        return unquote(self.path).partition("?")[0].strip("/").split("/")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """Context in which the hub is this one, with an empty cache, and nobody is logged in but by HF_TOKEN."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # What it has made of HF_ENDPOINT when it was imported, for this test or before it.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # large files by the LFS protocol
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
