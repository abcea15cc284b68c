"""Images that the e2e tests derive: of whatever archive a builder writes."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.variant import CONFIG, LAYER, MANIFEST, NAME, variant

CONFIGURATION = {
    "config": {"Env": ["A=1"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:base"]},
    "history": [{}],
}
BASE = b"the base's layer"


def written(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


def blob(content: bytes, media_type: str) -> tuple[str, dict[str, Any]]:
    digest = hashlib.sha256(content).hexdigest()
    return f"blobs/sha256/{digest}", {
        "mediaType": media_type,
        "digest": f"sha256:{digest}",
        "size": len(content),
    }


def oci(path: Path) -> Path:
    config, described_config = blob(json.dumps(CONFIGURATION).encode(), CONFIG)
    layer, described_layer = blob(BASE, LAYER)
    text = json.dumps({"schemaVersion": 2, "config": described_config, "layers": [described_layer]}).encode()
    manifest, described = blob(text, MANIFEST)
    return written(
        path,
        {
            config: json.dumps(CONFIGURATION).encode(),
            layer: BASE,
            manifest: text,
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [described]}).encode(),
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        },
    )


def docker(path: Path) -> Path:
    saved = [{"Config": "abc.json", "RepoTags": ["base:1"], "Layers": ["def/layer.tar"]}]
    return written(
        path,
        {
            "abc.json": json.dumps(CONFIGURATION).encode(),
            "def/layer.tar": BASE,
            "manifest.json": json.dumps(saved).encode(),
        },
    )


@pytest.mark.parametrize("save", [oci, docker])
def test_an_image_of_any_archive_gets_a_layer_more(save: Any, tmp_path: Path) -> None:
    made = tmp_path / "made.tar"
    variant(save(tmp_path / "base.tar"), "other:1", made, files={"etc/new": "hello"}, env={"B": "2"})
    with tarfile.open(made) as packed:
        read = {each.name: packed.extractfile(each).read() for each in packed if each.isfile()}  # type: ignore[union-attr]
    (described,) = json.loads(read["index.json"])["manifests"]
    assert described["annotations"] == {NAME: "other:1"}
    manifest = json.loads(read["blobs/" + described["digest"].replace(":", "/")])
    config = json.loads(read["blobs/" + manifest["config"]["digest"].replace(":", "/")])
    assert config["config"]["Env"] == ["A=1", "B=2"]
    first, last = (read["blobs/" + each["digest"].replace(":", "/")] for each in manifest["layers"])
    assert first == BASE
    assert config["rootfs"]["diff_ids"] == ["sha256:base", manifest["layers"][1]["digest"]]
    with tarfile.open(fileobj=io.BytesIO(last)) as layer:
        assert layer.extractfile("etc/new").read() == b"hello"  # type: ignore[union-attr]
