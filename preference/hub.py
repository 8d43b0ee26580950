"""Models in the Hugging Face hub: a reference becomes a folder, a folder becomes a repository.

Between `robopref push` (policies/push.py) and every command that reads a VLP, a policy or a learned reward.  Only weights in
safetensors, settings in JSON and the card are fetched.  The token is huggingface_hub's own affair (HF_TOKEN); no message here
quotes what a server or an HTTP client says, because that may quote the request, and with it the token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import responses
from pathlib import Path
from typing import Literal

import huggingface_hub.constants
from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import digest, read_json
from robopref.configs.run_folder import CARD, refuse_outside, refuse_unfinished
from robopref.configs.web import Excess
from robopref.preference.hub_guard import guarded_hub

PREFIX = "hf-hub:"
WEIGHTS = "model.safetensors"
SETTINGS = "config.json"
PICTURES = "pictures.safetensors"
REWARD = "reward"
Kind = Literal["vlp", "policy", "reward"]
FILES: dict[Kind, tuple[str, ...]] = {
    "vlp": (CARD, SETTINGS, WEIGHTS, PICTURES, f"backbone/{SETTINGS}", f"backbone/{WEIGHTS}"),
    "policy": (CARD, SETTINGS, WEIGHTS, f"{REWARD}/{SETTINGS}", f"{REWARD}/{WEIGHTS}"),
    "reward": (CARD, SETTINGS, WEIGHTS),
}
"""All that a shared model may consist of, by the kind in its settings; `backbone/` only where a VLP's is a small one, `reward/`
only where a policy learnt one.
"""
SOURCES: dict[Kind, str] = {
    "vlp": "of a run of `robopref train-vlp`",
    "policy": "of a run of `robopref train`",
    "reward": "of a run of policy=piql, or of its reward",
}
READING = (
    "check the name, connect once so that it is kept, and set HF_TOKEN if it is private; "
    "or give the path of a folder that `robopref push RUN --to FOLDER` wrote"
)
WRITING = (
    "check the name and that HF_TOKEN may write there, and connect; or push to a folder, --to FOLDER, and give that to others"
)


def parse_reference(reference: str) -> tuple[str, str | None]:
    """`hf-hub:OWNER/NAME[@REVISION]` -> (OWNER/NAME, revision or None); UsageError for anything else."""
    found = re.fullmatch(PREFIX + r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", reference)
    if found is None:
        raise UsageError(f"{reference}: write {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    try:
        validate_repo_id(found[1])
    except HFValidationError as error:
        raise UsageError(f"{reference}: the hub allows no such name: letters, digits and single - . _ between them") from error
    return found[1], found[2]


def name_of(reference: str | Path) -> str:
    """What tables and films call the model of a reference: NAME of hf-hub:OWNER/NAME[@REVISION], or the folder's name.

    That is also the name of a folder that is given as `.` or `..`.
    """
    reference = str(reference)
    return (
        parse_reference(reference)[0].partition("/")[2] if reference.startswith(PREFIX) else Path(os.path.abspath(reference)).name
    )


def find_model(reference: str | Path, kind: Kind | None = None) -> Path:
    """The folder of the model that `reference` names: a folder as it is, or a download of hf-hub:OWNER/NAME[@REVISION].

    kind: what is wanted, None for any.  For a reward the policy that learnt it will do: its `reward/` is meant.

    A download is kept in the hub's cache, in a folder named after the commit that the revision stands for; manifests record
    that path, and so the commit, which is one and the same as long as the process lives.  Without a network (or with
    HF_HUB_OFFLINE) what was kept is used.  Raises RoboprefError when it can neither be fetched nor was kept, was not written by
    robopref, or, before its weights are fetched, when it is of another kind, and for the folder of an unfinished run.  Of other
    folders the kind is left to whoever loads.
    """
    reference = str(reference)
    folder = _fetched(reference, kind) if reference.startswith(PREFIX) else Path(reference)
    refuse_unfinished(folder)
    refuse_outside(folder, (REWARD,))
    return folder / REWARD if kind == "reward" and (folder / REWARD / SETTINGS).is_file() else folder


@cache
def _fetched(reference: str, wanted: Kind | None) -> Path:
    """The snapshot of a repository in the hub; see `find_model`."""
    repo, revision = parse_reference(reference)
    with _hub_errors(f"{reference} cannot be had", READING):
        # Card and settings first: a repository of another kind shall not be downloaded to find that out.
        told = [CARD, SETTINGS, f"{REWARD}/{SETTINGS}"]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=told))
        _check_bytes(folder)
    try:
        settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else None
    except RoboprefError:
        _forget(folder / SETTINGS)
        raise RoboprefError(f"{reference} cannot be had: its {SETTINGS} is no JSON, and is not kept; {READING}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
        raise RoboprefError(
            f"{reference} was not written by robopref ({SETTINGS} says no kind): name one that `robopref push` wrote"
        )
    kind = settings["kind"]
    rewarded = wanted == "reward" and kind == "policy" and (folder / REWARD / SETTINGS).is_file()
    if kind not in FILES or (wanted is not None and kind != wanted and not rewarded):
        raise RoboprefError(
            f"{reference} holds a {kind[:40]!r}, a {' or a '.join(map(repr, [wanted] if wanted else FILES))} is wanted: name one "
            f"that `robopref push` wrote{f' {SOURCES[wanted]}' if wanted else ''}"
        )
    with _hub_errors(f"{reference} cannot be had", READING):
        folder = Path(snapshot_download(repo, revision=folder.name, allow_patterns=list(FILES[kind])))
        _check_bytes(folder)
    return folder


def _check_bytes(folder: Path) -> None:
    """Excess for a file of a snapshot that is not what its name in the cache says, a SHA-256 for weights; it leaves the cache."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        kept = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", kept.name) and digest(kept) != kept.name:
            _forget(path)
            raise Excess(f"it sends other bytes of {path.relative_to(folder)} than its SHA-256 says")


def _forget(path: Path) -> None:
    """Take a file out of the cache, so that it is fetched again."""
    kept = path.resolve()
    path.unlink()
    kept.unlink(missing_ok=True)


def check_upload(reference: str) -> None:
    """Raise RoboprefError where an upload cannot work: offline, or without a token."""
    with _hub_errors(f"{reference} cannot be written", WRITING):
        if huggingface_hub.constants.is_offline_mode():
            raise OfflineModeIsEnabled
        token = get_token()
    if token is None:
        raise RoboprefError(f"{reference} cannot be written: there is no token; set HF_TOKEN to one that may write there")


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload every file of `folder` to OWNER/NAME, made if need be, as one commit; returns hf-hub:OWNER/NAME@COMMIT.

    What an earlier push wrote there and this one does not, such as another model's backbone, leaves with the same commit.
    """
    reference = f"{PREFIX}{repo}"
    api = HfApi(library_name="robopref")
    with _hub_errors(f"{reference} cannot be written", WRITING):
        api.create_repo(repo, private=private or None, exist_ok=True)
        public = not api.model_info(repo).private
    if private and public:
        raise RoboprefError(f"{reference} is there already and public: make it private in its settings, or leave out --private")
    with _hub_errors(f"{reference} cannot be written", WRITING):
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="Pushed by robopref",
            delete_patterns=sorted({file for files in FILES.values() for file in files}),
        )
    return f"{reference}@{commit.oid}"


@contextmanager
def _hub_errors(what: str, way_out: str) -> Iterator[None]:
    """Turn whatever goes wrong between here and the hub into a RoboprefError of one line: what, why and the way out."""
    try:
        with guarded_hub({file for files in FILES.values() for file in files}):
            yield
    except Exception as error:  # of the library, of its HTTP client (another one in each major version) and of the disk
        raise RoboprefError(f"{what}: {_why(error)}; {way_out}") from error


def _why(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:  # "not in the cache" is raised from the reason why the hub was not asked
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, Excess):
            return f"the hub is given up: {cause}"
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if isinstance(cause, RevisionNotFoundError):
            return "the hub has no such revision of it"
        if status is not None:
            return f"the hub answers {status} {responses.get(status, '')}".rstrip()
        error, cause = cause, cause.__cause__
    return (isinstance(error, OSError) and error.strerror) or f"no usable answer from the hub ({type(error).__name__})"
