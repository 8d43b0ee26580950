"""A Hugging Face hub on this machine: the few endpoints that a download of files and an upload of small ones use.

A repository whose name is `answers-STATUS` answers every request so; of one called `cuts-info`, `cuts-settings` or
`cuts-weights` the connection is cut when those are asked for.  Refusals quote the request's Authorization, as a careless proxy
may: nobody must print it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_not-to-be-seen"
API = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree|preupload|commit)/([^/?]+))?")
FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories in memory: name -> commits, each path -> content, newest last."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []  # "METHOD path" of every request
        self.endpoint = ""

    def commit(self, repo: str, files: dict[str, bytes], gone: Collection[str] = ()) -> str:
        """Add `files` to what is there, without what is `gone`; the new commit's name."""
        commits = self.commits.setdefault(repo, [])
        kept = {path: content for path, content in (commits[-1] if commits else {}).items() if path not in gone}
        commits.append(kept | files)
        return sha(commits[-1])

    def at(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision: `main` or a commit's name."""
        commits = self.commits.get(repo, [])
        return next((files for files in reversed(commits) if revision in ("main", sha(files))), None)


def sha(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at `hub.endpoint` (HF_ENDPOINT), until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        if found := API.match(self.path):
            repo, what, revision = found.groups()
            if self.refused(repo, "info"):
                return
            files = self.hub.at(repo, revision or "main")
            if files is None:
                code = "RevisionNotFound" if repo in self.hub.commits else "RepoNotFound"
                self.answer(404, {"error": "no"}, {"X-Error-Code": code})
            elif what == "tree":
                oids = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
                self.answer(200, [{"type": "file", "path": p, "size": len(files[p]), "oid": oid} for p, oid in oids.items()])
            else:
                siblings = [{"rfilename": path} for path in files]
                private = repo in self.hub.private
                self.answer(200, {"id": repo, "sha": sha(files), "private": private, "siblings": siblings, "tags": []})
        elif found := FILE.match(self.path):
            repo, revision, path = found.groups()
            files = self.hub.at(repo, revision)
            if self.refused(repo, "weights" if path.endswith(".safetensors") else "settings"):
                return
            if files is None or path not in files:
                self.answer(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
            else:
                etag = hashlib.sha1(files[path]).hexdigest()
                self.answer(200, files[path], {"X-Repo-Commit": sha(files), "ETag": f'"{etag}"'})
        else:
            self.answer(404, {"error": "no such address"})

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            head = json.loads(body)["content"].split("---\n")[1]
            self.answer(200 if isinstance(yaml.safe_load(head), dict) else 400, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if self.refused(repo, "info", writing=True):
                return
            status = 409 if repo in self.hub.commits else 200
            if status == 200:
                self.hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
                if asked.get("private") or asked.get("visibility") == "private":
                    self.hub.private.add(repo)
            self.answer(status, {"url": f"{self.hub.endpoint}/{repo}"})
        elif found := API.match(self.path):
            repo, what, _ = found.groups()
            if self.refused(repo, "info", writing=True):
                return
            if what == "preupload":  # every file is small enough for git itself; the real hub sends weights to its storage
                paths = [file["path"] for file in json.loads(body)["files"]]
                self.answer(200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
            else:
                lines = [json.loads(line) for line in body.splitlines()]
                values = [line["value"] for line in lines if line["key"] == "file"]
                gone = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
                oid = self.hub.commit(repo, {value["path"]: base64.b64decode(value["content"]) for value in values}, gone)
                self.answer(200, {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid})
        else:
            self.answer(404, {"error": "no such address"})

    def refused(self, repo: str, what: str, writing: bool = False) -> bool:
        """Whether this request got no for an answer, or none."""
        name = repo.partition("/")[2]
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name == f"cuts-{what}" and self.command != "HEAD":
            self.close_connection = True
            self.connection.close()
            return True
        if name.startswith("answers-"):
            self.answer(int(name.removeprefix("answers-")), {"error": f"refused {self.headers.get('Authorization')}"})
            return True
        if not allowed and (writing or repo in self.hub.private):
            self.answer(401, {"error": f"refused {self.headers.get('Authorization')}"})
            return True
        return False

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
