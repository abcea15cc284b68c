"""The pure parts of `kubectl slm`: refusals, hosts, containers, conversations, figures, names."""

from typing import Any

import pytest
import yaml

from kubectl_slm import output
from kubectl_slm.__main__ import VERBS, main
from kubectl_slm.asking.benching import key_entry, measured
from kubectl_slm.asking.conversation import Conversation
from kubectl_slm.containers import Voice, telling
from kubectl_slm.deploying import name_for, source_of
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.exposition import Figures, figures
from kubectl_slm.planning.capacity import Demand, capacity
from kubectl_slm.planning.fields import unknown_fields
from kubectl_slm.planning.hosts import hosts_asked
from kubectl_slm.planning.site import settings_of
from kubectl_slm.refusals import refusal
from tests.contract.test_examples import ROOT


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (
            "The connection to the server localhost:8080 was refused - did you specify it?",
            Exit.UNREACHABLE,
            "refused",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup a: no such host",
            Exit.UNREACHABLE,
            "no such host",
        ),
        ("error: You must be logged in to the server (Unauthorized)", Exit.FORBIDDEN, "logged in"),
        ('error: context "b" does not exist', Exit.USAGE, "context"),
        ('error: the server doesn\'t have a resource type "slmdeployments"', Exit.NO, "resource type"),
        ('Error from server (NotFound): slmdeployments "a" not found', Exit.NOT_FOUND, '"a" not found'),
        (
            'Error from server (Forbidden): pods is forbidden: User "u" cannot list',
            Exit.FORBIDDEN,
            "cannot list",
        ),
        ('Error from server (BadRequest): strict decoding error: unknown field "spec.x"', Exit.NO, "spec.x"),
        (
            "E1201 03:00:00.1 1 memcache.go:265] couldn't get it\nerror: something new",
            Exit.NO,
            "something new",
        ),
    ],
)
def test_kubectls_words_become_a_sentence_and_a_remedy(told: str, code: Exit, words: str) -> None:
    error = refusal(told)
    assert error.code is code
    assert words in error.message
    assert not error.message.lower().startswith("error")
    assert error.remedy


@pytest.mark.parametrize(
    ("source", "hosts"),
    [
        ("hf://org/repository/a.gguf", ["huggingface.co", "*.hf.co"]),
        ("ollama://llama3.2:1b", ["registry.ollama.ai", "*.r2.cloudflarestorage.com"]),
        ("ollama://hf.co/org/repository:Q4_K_M", ["hf.co"]),
        ("https://models.corp:8443/a.gguf", ["models.corp:8443"]),
        ("s3://bucket/a.gguf", ["*.amazonaws.com"]),
        ("pvc://claim/a.gguf", []),
        ("oci://mirrored.corp/a:1", ["registry.corp"]),
    ],
)
def test_hosts_are_those_of_the_source(source: str, hosts: list[str]) -> None:
    mirrors = [("oci://mirrored.corp/", "oci://registry.corp/hub/")]
    assert hosts_asked(source, {}, mirrors) == hosts


def test_hosts_of_the_site_stand_in_for_the_public_ones() -> None:
    site = {"HF_ENDPOINT": "https://hub.corp", "PIP_INDEX_URL": "https://name:secret@index.corp/simple"}
    assert hosts_asked("hf://org/repository", site, []) == ["hub.corp"]
    assert hosts_asked("pypi://a@1/b.gguf", site, []) == ["index.corp"]


def pod(
    name: str, *main: Any, init: tuple[Any, ...] = (), made: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": made},
        "status": {"initContainerStatuses": list(init), "containerStatuses": list(main)},
    }


def container(name: str, *, ready: bool = False, last: int | None = None, **state: Any) -> dict[str, Any]:
    told = {} if last is None else {"terminated": {"exitCode": last}}
    return {"name": name, "ready": ready, "state": state, "lastState": told}


RUNS: dict[str, Any] = {"running": {}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0}}
WAITS: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}}


FETCHED = (container("fetch", **DONE),)


@pytest.mark.parametrize(
    ("pods", "voice"),
    [
        ([pod("a", container("serve", waiting={}), init=(container("fetch", **RUNS),))], Voice("a", "fetch")),
        ([pod("a", container("serve", ready=True, **RUNS), init=FETCHED)], Voice("a", "serve")),
        ([pod("a", container("serve", last=50, **WAITS), init=FETCHED)], Voice("a", "serve", previous=True)),
        ([pod("j", container("inspect", **RUNS))], Voice("j", "inspect")),
        (
            [
                pod("old", container("serve", ready=True, **RUNS)),
                pod("new", container("serve", last=1, **WAITS), made="2026-01-02T00:00:00Z"),
            ],
            Voice("new", "serve", previous=True),
        ),
        ([pod("a", container("serve", waiting={}))], None),
    ],
)
def test_the_log_is_that_of_whoever_has_something_to_say(pods: list[Any], voice: Voice | None) -> None:
    assert telling(pods) == voice


def test_a_conversation_keeps_what_was_said_and_set() -> None:
    talk = Conversation()
    assert talk.command("/set parameter temperature 0") == ""
    assert talk.command('/set stop ["a", "b"]') == ""
    talk.command("/set system be brief")
    talk.ask("hello")
    talk.answered("hi")
    talk.ask("unanswered")
    talk.answered("")
    assert talk.parameters == {"temperature": 0, "stop": ["a", "b"]}
    assert [each["content"] for each in talk.messages] == ["be brief", "hello", "hi"]
    assert "temperature 0" in talk.command("/set")
    talk.command("/unset temperature")
    assert "temperature" not in talk.parameters
    assert "no command" in talk.command("/nonsense")
    assert talk.command("/set model other")
    talk.command("/clear")
    assert [each["role"] for each in talk.messages] == ["system"]
    talk.command("/bye")
    assert talk.over


def test_figures_are_sums_over_labels_and_pods() -> None:
    text = """\
# TYPE slm_runtime_generated_tokens counter
slm_runtime_generated_tokens_total{model="a"} 10
slm_runtime_generated_tokens_total{model="b"} 5
slm_runtime_requests_waiting 2
slm_runtime_kv_cells_used 100
slm_runtime_kv_cells 400
slm_runtime_model_loaded 1
"""
    one = figures(text)
    assert one == Figures(generated=15, waiting=2, cells_used=100, cells=400, loaded=1)
    assert (one + one).cells == 800


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("phi-4-mini", "catalog://phi-4-mini", "phi-4-mini"),
        ("llama-3.2-1b", "catalog://llama-3.2-1b", "llama-3-2-1b"),
        ("qwen2.5:3b", "ollama://qwen2.5:3b", "qwen2-5-3b"),
        ("ollama://qwen3:0.6b", "ollama://qwen3:0.6b", "qwen3-0-6b"),
        ("hf://org/A_B-GGUF/A_B-Q4_K_M.gguf@main", "hf://org/A_B-GGUF/A_B-Q4_K_M.gguf@main", "a-b-q4-k-m"),
        ("oci://r/7b@sha256:aa", "oci://r/7b@sha256:aa", "model-7b"),
    ],
)
def test_a_model_gives_its_deployment_a_name(model: str, source: str, name: str) -> None:
    assert (source_of(model), name_for(model)) == (source, name)


def test_a_model_of_somebody_is_asked_about() -> None:
    with pytest.raises(CommandError) as error:
        source_of("microsoft/phi-4-mini")
    assert "hf://microsoft/phi-4-mini" in error.value.remedy


def test_a_field_that_there_isnt_is_named_with_what_may_be_meant() -> None:
    spec = {"model": {"source": "s"}, "runtime": {"contextlength": 1}, "podTemplate": {"sidecars": []}}
    told = unknown_fields({"spec": spec})
    assert "spec.runtime.contextlength is no field: did you mean contextLength?" in told
    assert unknown_fields({"spec": {"model": {"source": "s"}}}) == []


def test_the_charts_values_become_settings() -> None:
    values = yaml.safe_load((ROOT / "charts" / "slm-operator" / "values.yaml").read_text())
    settings = settings_of(values, "values.yaml")
    assert {each.family for each in settings.classes} >= {"npu", "gpu", "cpu"}
    assert settings.classes[-1].name == "cpu"
    assert all(
        each.node_selector["kubernetes.io/arch"] == "amd64" for each in settings.classes if not each.image
    )
    assert "phi-4-mini" in settings.catalog


def test_the_runtimes_bench_is_read() -> None:
    log = """smollm2, 96 tokens a client
 streams    tok/s     first   gap p99
       1     58.2    210 ms     19 ms
       8    141.0   1210 ms     80 ms
"""
    assert measured(log)[1] == {"streams": 8, "tokensPerSecond": 141, "firstTokenMs": 1210, "gapP99Ms": 80}
    assert key_entry({"owner-uid": "", "b": "x", "a": "y"}) == "a"
    assert key_entry({"api-key": "x", "a": "y"}) == "api-key"


BENCH = {
    "promptWords": 40,
    "measured": [
        {"streams": 8, "tokensPerSecond": 160, "firstTokenMs": 500, "gapP99Ms": 1},
        {"streams": 1, "tokensPerSecond": 60, "firstTokenMs": 100, "gapP99Ms": 1},
        {"streams": 4, "tokensPerSecond": 140, "firstTokenMs": 240, "gapP99Ms": 1},
    ],
}


def test_people_are_divided_by_the_most_that_begin_in_time() -> None:
    found = capacity(BENCH, Demand(people=20, prompt_tokens=800, answer_tokens=200, first_token=4))
    assert (found.replicas, found.streams) == (5, 4)
    assert round(found.first_token, 1) == 3.4
    assert round(found.answer, 1) == round(3.43 + 200 / 35, 1)
    assert capacity(BENCH, Demand(3, 50, 10, 2)).streams == 8
    with pytest.raises(CommandError) as error:
        capacity(BENCH, Demand(1, 8000, 10, 2))
    assert "14.3 s" in error.value.message


def test_a_table_has_its_columns_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = output.table(["NAME", "STATUS"], [["a", "Serving"], ["longer", ""]], status=1).splitlines()
    assert [line.index(word) for line, word in zip(lines, ("STATUS", "Serving", "-"), strict=True)] == [
        9,
        9,
        9,
    ]


def test_every_verb_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == Exit.OK
    overview = capsys.readouterr().out
    for name in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert VERBS[name] in overview


def test_a_verb_that_there_isnt_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pln"]) == Exit.USAGE
    assert "kubectl slm plan" in capsys.readouterr().err
