"""A Modelfile's template before a real model: what it answers is what it answers by its own template."""

from pathlib import Path

import httpx2
import pytest

from slm_contract.config import PromptConfig, PromptMessage
from slm_contract.gotemplate import translate
from tests.runtime.api.server import KEY, ServeProcess, serving
from tests.support.models import SMOLLM2, smollm2

pytestmark = pytest.mark.runtime

BY_TURNS = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n"
    "{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
BY_MESSAGES = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
SYSTEM = {"role": "system", "content": "You know geography."}
EXAMPLE = [{"role": "user", "content": "Capital of Italy?"}, {"role": "assistant", "content": "Rome."}]
QUESTION = {"role": "user", "content": "What is the capital of France?"}
GREEDY = {"temperature": 0, "num_predict": 6}
"""As far as the model doesn't waver: whatever is found in the prefix cache, the text is the same."""


def asked(server: ServeProcess, route: str, **question: object) -> str:
    body = {"model": SMOLLM2.name, "stream": False, "options": GREEDY, **question}
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx2.post(
        f"{server.base}/api/{route}", json=body, headers=headers, trust_env=False, timeout=120
    ).json()
    text: str = answer["response"] if route == "generate" else answer["message"]["content"]
    return text


@pytest.mark.parametrize("template", [BY_TURNS, BY_MESSAGES])
def test_a_requests_own_template(smol: ServeProcess, template: str) -> None:
    own = asked(smol, "chat", messages=[SYSTEM, QUESTION])
    question = {"prompt": QUESTION["content"], "system": SYSTEM["content"]}
    assert asked(smol, "generate", template=template, **question) == own
    assert asked(smol, "generate", template="{{ .Prompt }}", **question) != own


def test_a_deployments_template_and_examples(smol: ServeProcess, tmp_path: Path) -> None:
    own = asked(smol, "chat", messages=[SYSTEM, *EXAMPLE, QUESTION])
    prompt = PromptConfig(
        system=SYSTEM["content"],
        template=translate(BY_TURNS),
        messages=tuple(PromptMessage.model_validate(each) for each in EXAMPLE),
    )
    with serving(SMOLLM2, smollm2().parent.parent, tmp_path, prompt=prompt) as server:
        assert asked(server, "chat", messages=[QUESTION]) == own
        assert asked(server, "generate", prompt=QUESTION["content"]) == own
