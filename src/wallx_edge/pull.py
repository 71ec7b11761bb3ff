"""Pull: a checkpoint's files from the hub, resumed where it stopped, checked before they are used."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from wallx_edge.errors import CheckpointError, ConfigError, WallxError
from wallx_edge.fast import FOLDER as FAST_FOLDER

__all__ = ["Plan", "RemoteFile", "fetch", "plan"]

REQUIRED = ("config.json", "preprocessor_config.json", "tokenizer.json")
OPTIONAL = (
    "config.yaml",
    "config.yml",
    "model.safetensors.index.json",
    "norm_stats.json",
    "normalizer_action.pth",
    "normalizer_propri.pth",
    "tokenizer_config.json",
)
FAST = ("processor_config.json", "tokenizer.json")
_WEIGHTS = re.compile(r"model[\w.-]*\.safetensors")
_RESERVE = 64 << 20  # left free on the disk [B]
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository on the hub.

    Attributes:
        repo: OWNER/NAME.
        commit: that its content belongs to.
        name: in the repository.
        target: in the checkpoint's folder.
        size: [B]
        digest: ``sha256:`` of a large file, ``git:`` blob id of a small one.
    """

    repo: str
    commit: str
    name: str
    target: str
    size: int
    digest: str


@dataclass(frozen=True)
class Plan:
    """What a pull fetches, before it fetches anything.

    Attributes:
        folder: where to.
        files: all that the engine needs, whether already there or not.
        left_out: files of the repository that it does not need.
        missing_bytes: still to be fetched [B]
        free_bytes: on the folder's disk [B]
        endpoint: address of the hub.
    """

    folder: Path
    files: tuple[RemoteFile, ...]
    left_out: tuple[str, ...]
    missing_bytes: int
    free_bytes: int
    endpoint: str


def plan(
    repo: str,
    folder: Path,
    *,
    revision: str | None = None,
    fast_repo: str | None = None,
    endpoint: str | None = None,
) -> Plan:
    """Asks the hub what a repository holds. Writes nothing. Blocks for the network.

    Addresses, mirrors, proxies and tokens are the hub library's own settings (``HF_ENDPOINT``, ``HF_TOKEN``, ...).

    Args:
        repo: OWNER/NAME.
        folder: for the checkpoint.
        revision: branch, tag or commit; the default branch when not given.
        fast_repo: OWNER/NAME of the FAST action tokenizer, for a checkpoint that comes without.
        endpoint: address of the hub, instead of the library's setting.

    Raises:
        ConfigError: the extra is not installed, or a name that is none.
        CheckpointError: the repository is no checkpoint that the engine loads.
        WallxError: the hub cannot be reached or refuses.
    """
    hub = _library()
    api = hub.HfApi(endpoint=endpoint)
    listing = _listing(api, repo, revision)
    names = set(listing)
    weights = sorted(name for name in names if _WEIGHTS.fullmatch(name))
    missing = [name for name in REQUIRED if name not in names]
    if missing or not weights:
        raise CheckpointError(
            f"{repo}: no {missing[0] if missing else 'model*.safetensors'} among its {len(names)} files; "
            "this is not a checkpoint that the engine loads"
        )
    wanted = {name: name for name in (*REQUIRED, *(n for n in OPTIONAL if n in names), *weights)}
    wanted |= {name: name for name in (f"{FAST_FOLDER}/{file}" for file in FAST) if name in names}
    files = [listing[name] for name in wanted]
    if fast_repo is not None:
        other = _listing(api, fast_repo, None)
        lacking = [name for name in FAST if name not in other]
        if lacking:
            raise CheckpointError(f"{fast_repo}: no {lacking[0]}; this is not a FAST action tokenizer")
        files = [file for file in files if not file.target.startswith(f"{FAST_FOLDER}/")]
        files += [
            RemoteFile(f.repo, f.commit, f.name, f"{FAST_FOLDER}/{f.name}", f.size, f.digest)
            for f in (other[name] for name in FAST)
        ]
    return Plan(
        folder=folder,
        files=tuple(files),
        left_out=tuple(sorted(names - set(wanted))),
        missing_bytes=sum(max(f.size - _present(folder, f), 0) for f in files),
        free_bytes=free_bytes(folder),
        endpoint=str(api.endpoint),
    )


def fetch(chosen: Plan, on_progress: Callable[[str, int], None] | None = None) -> list[str]:
    """Fetches what is not there yet, file by file. Blocks, for hours if the line is slow.

    What a stopped pull left is continued. Every file, new or found, is compared with the hub's digest; a new one takes
    its name only then.

    Args:
        chosen: from :func:`plan`.
        on_progress: called with ``fetch`` or ``check`` and a number of bytes [B].

    Returns:
        names of the files that were fetched.

    Raises:
        ConfigError: too little room on the disk; nothing was fetched.
        WallxError: the hub cannot be reached or refuses, a file is not what the hub says, or cannot be written.
    """
    report = on_progress or (lambda what, count: None)
    if chosen.missing_bytes + _RESERVE > chosen.free_bytes:
        raise ConfigError(
            f"{chosen.folder}: {chosen.missing_bytes / 1e9:.2f} GB to fetch, {chosen.free_bytes / 1e9:.2f} GB free; "
            "choose a folder on another disk"
        )
    fetched: list[str] = []
    for file in chosen.files:
        target = chosen.folder / file.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_file() and target.stat().st_size == file.size and _is_intact(target, file, report):
                continue
            _fetch_one(file, target, chosen.endpoint, report)
        except WallxError:
            raise
        except OSError as error:
            raise WallxError(f"{target}: {error.strerror or error}; pull again to continue") from error
        fetched.append(file.target)
    return fetched


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that need not exist yet [B]"""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def endpoint() -> str:
    """The address that the hub library is set to.

    Raises:
        ConfigError: the extra is not installed.
    """
    return str(_library().HfApi().endpoint)


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("pull needs the hub's library: pip install 'wallx-edge[hub]'") from error
    library: ModuleType = huggingface_hub
    return library


def _listing(api: Any, repo: str, revision: str | None) -> dict[str, RemoteFile]:
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = api.model_info(repo, revision=revision, files_metadata=True)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(_reason(repo, api.endpoint, error)) from error
    except Exception as error:  # the library lets through what the http library below it raises, which changed twice
        raise WallxError(_reason(repo, api.endpoint, error)) from error
    files: dict[str, RemoteFile] = {}
    for sibling in info.siblings or ():
        digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
        if sibling.size is not None and (sibling.lfs or sibling.blob_id):
            name = sibling.rfilename
            files[name] = RemoteFile(repo, str(info.sha), name, name, int(sibling.size), digest)
    return files


def _reason(what: str, address: str, error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{what} at {address}: {text:.400}"


def _part(target: Path, file: RemoteFile) -> Path:
    # named after the content: a part of another version is never continued
    return target.with_name(f".{target.name}.{file.digest.partition(':')[2][:16]}.part")


def _present(folder: Path, file: RemoteFile) -> int:
    target = folder / file.target
    for path in (target, _part(target, file)):
        if path.is_file() and (path != target or path.stat().st_size == file.size):
            return path.stat().st_size
    return 0


def _fetch_one(file: RemoteFile, target: Path, address: str, report: Callable[[str, int], None]) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        build_hf_headers,
        disable_progress_bars,
        enable_progress_bars,
    )

    part = _part(target, file)
    begin = min(part.stat().st_size, file.size) if part.is_file() else 0
    url = hf_hub_url(file.repo, file.name, revision=file.commit, endpoint=address)
    were_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        # not the library's own download: since version 2 it begins a stopped file again
        with part.open("r+b" if begin else "wb") as stream:
            stream.seek(begin)
            stream.truncate()
            http_get(
                url,
                _Reported(stream, report),
                resume_size=begin,
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
            stream.flush()
            os.fsync(stream.fileno())
    except Exception as error:  # as in _listing
        if part.is_file() and part.stat().st_size > file.size:
            part.unlink()  # a mirror that ignores ranges: before version 2, the library appends the whole file
        raise WallxError(f"{_reason(file.name, address, error)}; pull again to continue") from error
    finally:
        if were_shown:
            enable_progress_bars()
    if part.stat().st_size != file.size or not _is_intact(part, file, report):
        part.unlink()
        raise WallxError(
            f"{file.name}: what {address} sent is not the file that it lists ({file.digest}); pull again, or use "
            "another mirror"
        )
    part.replace(target)


class _Reported:
    """A file that counts what is written to it, for progress."""

    def __init__(self, stream: Any, report: Callable[[str, int], None]) -> None:
        self._stream = stream
        self._report = report

    def write(self, data: bytes) -> int:
        self._report("fetch", len(data))
        return int(self._stream.write(data))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        at = self._stream.tell()
        before = self._stream.seek(0, 2)
        self._stream.seek(at)
        after = int(self._stream.truncate(size))
        self._report("fetch", after - before)
        return after

    def tell(self) -> int:
        return int(self._stream.tell())


def _is_intact(path: Path, file: RemoteFile, report: Callable[[str, int], None]) -> bool:
    kind, _, wanted = file.digest.partition(":")
    digest = hashlib.sha256()
    if kind == "git":
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    for block in _blocks(path):
        digest.update(block)
        report("check", len(block))
    return digest.hexdigest() == wanted


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
