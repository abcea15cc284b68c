"""What a real serving process tells of itself, and of its canaries."""

import time
from pathlib import Path

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from slm_contract import metrics as names
from slm_contract.config import CanaryConfig, ModelConfig
from tests.runtime.api.server import HEADERS, ServeProcess, serving

CANARIES = (
    CanaryConfig(name="same", prompt="Which day is it?", same_as_first=True, every_seconds=1, max_tokens=8),
    CanaryConfig(name="never", prompt="Which day is it?", contains="\0", every_seconds=600, max_tokens=8),
    CanaryConfig(name="text", prompt="Which day is it?", regex="^", every_seconds=600, max_tokens=8),
)


def scraped(server: ServeProcess) -> dict[str, Metric]:
    text = httpx.get(f"{server.ops}/metrics", trust_env=False).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def canaries(server: ServeProcess) -> dict[str, bool]:
    return {each.name: each.passed for each in server.report().canaries or ()}


def test_what_is_served_by_what_and_whether_it_answers_as_it_did(
    tiny_model: tuple[ModelConfig, Path], tmp_path: Path
) -> None:
    model, model_dir = tiny_model
    with serving(
        model, model_dir, tmp_path, canaries=CANARIES, metric_aliases=("vLLM",), context_length=256
    ) as server:
        end = time.monotonic() + 60
        while canaries(server) != {"same": True, "never": False, "text": True}:
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        first = canary_time(server, "same")
        while canary_time(server, "same") == first:
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        assert canaries(server)["same"], "it answers again as it did"
        ask = {"model": "tiny", "prompt": "Hello", "max_tokens": 4, "n": 2}
        httpx.post(f"{server.base}/v1/completions", json=ask, headers=HEADERS, trust_env=False)
        # A canary may be asked just now.
        while (told := scraped(server))[names.KV_CELLS_USED].samples[0].value:
            assert time.monotonic() < end, server.log.read_text()
        (info,) = told[names.MODEL_INFO].samples
        assert info.labels["model"] == "tiny"
        assert info.labels["engine"] == "llama.cpp"
        assert info.labels["device"].startswith("cpu")
        assert info.labels["class"] == "cpu"
        assert told[f"{names.ENGINE_PROCESS}_cpu_seconds"].samples[0].value > 0
        assert told[f"{names.ENGINE_PROCESS}_resident_memory_bytes"].samples[0].value > 10**7
        memory = {each.labels["kind"]: each.value for each in told[names.MEMORY].samples}
        assert memory["weights"] > 0
        assert memory["kv_cache"] > 0
        # The prompt's cells stay for whoever asks with the same beginning, and nobody holds them.
        assert told[names.KV_CELLS_EVICTABLE].samples[0].value > 0
        assert told["vllm:kv_cache_usage_perc"].samples[0].value == 0
        (count,) = [each for each in told[names.REQUEST_SECONDS].samples if each.name.endswith("_count")]
        assert count.value == 1, "canaries aren't clients"


def canary_time(server: ServeProcess, name: str) -> float:
    samples = scraped(server)[names.CANARY_TIME].samples
    return next(each.value for each in samples if each.labels["canary"] == name)
