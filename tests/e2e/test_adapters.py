"""A model with two LoRA adapters: fetched and served beside it by name, there again while their source is down."""

from pathlib import Path

import pytest

from tests.e2e.site import Namespace, Site
from tests.e2e.source import CA, source
from tests.e2e.volume import CLASS, static_volume
from tests.support.gguf import TinyLora, write_tiny_gguf

pytestmark = pytest.mark.e2e

NAMES = ("tiny", "first", "second")
PROMPT = "word but not what all were we"


def continued(ns: Namespace) -> dict[str, str]:
    """What follows greedily, by the name that was asked."""
    with ns.client("tiny") as client:
        assert [each.id for each in client.models.list()] == list(NAMES)
        return {
            name: client.completions.create(model=name, prompt=PROMPT, max_tokens=16, temperature=0)
            .choices[0]
            .text
            for name in NAMES
        }


def test_each_adapter_answers_under_its_own_name(site: Site, tmp_path: Path) -> None:
    with static_volume(site), site.namespace("adapters") as ns, source(ns, site.runtime_image) as server:
        server.put("tiny.gguf", write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes())
        for number, name in enumerate(NAMES[1:], 1):
            server.put(f"{name}.gguf", TinyLora(seed=number).write(tmp_path / f"{name}.gguf").read_bytes())
        adapters = [{"name": name, "source": server.url(f"{name}.gguf")} for name in NAMES[1:]]
        spec = {
            "model": {
                "name": "tiny",
                "source": server.url("tiny.gguf"),
                "caBundle": CA,
                "adapters": adapters,
            },
            "runtime": {"contextLength": 512, "parallel": 2},
            "cache": {"mode": "PVC", "size": "1Gi", "storageClassName": CLASS},
        }
        ns.apply("tiny", spec)
        told = ns.wait_ready("tiny")["model"]["adapters"]
        assert [each["name"] for each in told] == list(NAMES[1:])
        answers = continued(ns)
        assert len(set(answers.values())) == len(NAMES), answers
        server.go_down()
        site.kubectl("delete", "pod", "-l", "app.kubernetes.io/instance=tiny", "-n", ns.name)
        ns.wait_ready("tiny", after_failure=True)
        assert continued(ns) == answers
