"""Another image from one that was built here: a layer more, other settings, a name and a digest of its own."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAME = "org.opencontainers.image.ref.name"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def variant(
    archive: Path, name: str, target: Path, *, files: Mapping[str, str], env: Mapping[str, str]
) -> None:
    """Write an OCI archive to *target* that holds the image *name*.

    Parameters
    ----------
    files
        Text of what the image holds beside what it held, by path.
    env
        What it sets in the environment beside what it set.
    """
    with TemporaryDirectory(dir=target.parent) as folder:
        layout = _Layout(Path(folder))
        with tarfile.open(archive) as packed:
            packed.extractall(layout.folder, filter="data")
        manifest, config = layout.image()
        layer = layout.add(_tar(files), LAYER)
        manifest["layers"].append(layer)
        config["rootfs"]["diff_ids"].append(layer["digest"])
        config["config"]["Env"] += [f"{key}={value}" for key, value in env.items()]
        config.pop("history", None)
        manifest["config"] = layout.add(_json(config), CONFIG)
        described = layout.add(_json(manifest), MANIFEST) | {"annotations": {NAME: name}}
        index = {"schemaVersion": 2, "manifests": [described]}
        (layout.folder / "index.json").write_text(json.dumps(index))
        (layout.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        with tarfile.open(target, "w") as packed:
            for each in ("oci-layout", "index.json", "blobs"):
                packed.add(layout.folder / each, each)


class _Layout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Manifest and configuration of the one image that is there, as OCI's layout or as Docker's older archive has it."""
        if (self.folder / "index.json").exists():
            (described,) = json.loads((self.folder / "index.json").read_text())["manifests"]
            manifest = self.read(described["digest"])
            return manifest, self.read(manifest["config"]["digest"])
        (saved,) = json.loads((self.folder / "manifest.json").read_text())
        layers = [self.add((self.folder / each).read_bytes(), LAYER) for each in saved["Layers"]]
        config = json.loads((self.folder / saved["Config"]).read_text())
        return {"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}, config

    def read(self, digest: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._path(digest).read_bytes())
        return document

    def add(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Put a blob there, and describe it."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._path(digest).parent.mkdir(parents=True, exist_ok=True)
        self._path(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "/")


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _tar(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o644
            layer.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()
