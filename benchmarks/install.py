"""The peers, installed into folders of their own."""

from __future__ import annotations

import hashlib
import http.client
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2

import pq

from .peers import PEERS, Peer

#: Seconds for one.
PATIENCE = 300

ROOT = Path(pq.__file__).parents[1]


class Installed:
    """
    :ivar folders: by the names of peers: what is first on their paths.
    :ivar absent: by the names of the others: why.
    :ivar versions: of those that were installed, for the report.
    """

    def __init__(self, folder: Path, names: list[str], files: Mapping[str, Path]) -> None:
        """
        :param files: by the names of peers: the file that it is, instead of one that is downloaded.
        """
        self.folders: dict[str, Path] = {}
        self.absent: dict[str, str] = {}
        self.versions: dict[str, str] = {"pq": pq.__version__, "psycopg2": psycopg2.__version__.split()[0]}
        homes: dict[str, type[Peer]] = {PEERS[name].home: PEERS[name] for name in names if PEERS[name].home}  # type: ignore[misc]
        with ThreadPoolExecutor() as pool:
            made = pool.map(lambda home: install(homes[home], folder / home, files.get(home)), homes)
            errors = dict(zip(homes, made, strict=True))
        for name in names:
            peer = PEERS[name]
            if peer.home is None:
                self.folders[name] = ROOT
            elif error := errors[peer.home]:
                self.absent[name] = error
            else:
                self.folders[name] = folder / peer.home
                self.versions[peer.home] = version(peer, folder / peer.home)


def install(peer: type[Peer], folder: Path, file: Path | None = None) -> str:
    """Returns why it could not be done; nothing if it was, now or before."""
    mark = folder / "complete"
    if mark.exists() and file is None:
        return ""
    shutil.rmtree(folder, ignore_errors=True)  # of one that was interrupted
    folder.mkdir()
    if peer.file is not None:
        error = download(*peer.file, folder, file)
        return error or mark.touch() or ""
    if peer.node:
        if not (shutil.which("node") and shutil.which("npm")):
            return "there is no Node.js"
        cache = str(folder / "cache")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--cache", cache, "--prefix", str(folder)]
    else:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--target", str(folder)]
        if not peer.dependencies:
            command.append("--no-deps")
    try:
        done = subprocess.run(
            [*command, *peer.packages], cwd=folder, capture_output=True, encoding="utf-8", errors="replace",
            timeout=PATIENCE, check=False, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    mark.touch()
    return ""


def download(address: str, digest: str, folder: Path, file: Path | None) -> str:
    """
    :param file: it is there already; may be another version.
    """
    try:
        if file is not None:
            content = file.read_bytes()
        else:
            with urllib.request.urlopen(address, timeout=PATIENCE / 10) as answer:
                content = answer.read()
            if hashlib.sha256(content).hexdigest() != digest:
                return f"{address} is another file than the one that was looked at"
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {error}"
    (folder / address.rpartition("/")[2]).write_bytes(content)
    return ""


def version(peer: type[Peer], folder: Path) -> str:
    if peer.file is not None:
        (text,) = (file.read_text("utf-8") for file in folder.glob("*.sql"))
        found = re.search(r"^-- Version: (\S+)", text, re.MULTILINE)
        return found[1] if found else "?"
    name = peer.packages[0].split("[")[0].split("=")[0]
    if peer.node:
        import json

        return str(json.loads((folder / "node_modules" / name / "package.json").read_text())["version"])
    (found,) = importlib.metadata.distributions(path=[str(folder)], name=name)
    return found.version
