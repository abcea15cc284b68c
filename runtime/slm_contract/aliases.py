"""The runtime's metrics under other servers' names, for routers, dashboards and recipes that were written for these."""

from collections.abc import Mapping
from typing import Final, Literal

from slm_contract import metrics

Dialect = Literal["vLLM"]

VLLM: Final[Mapping[str, str]] = {
    metrics.REQUESTS_RUNNING: "vllm:num_requests_running",
    metrics.WAITING: "vllm:num_requests_waiting",
    metrics.KV_USAGE: "vllm:kv_cache_usage_perc",
    metrics.PROMPT_TOKENS: "vllm:prompt_tokens",
    metrics.GENERATED_TOKENS: "vllm:generation_tokens",
    metrics.PREFIX_TOKENS: "vllm:prefix_cache_hits",
    metrics.PREEMPTIONS: "vllm:num_preemptions",
    metrics.TIME_TO_FIRST_TOKEN: "vllm:time_to_first_token_seconds",
    metrics.INTER_TOKEN: "vllm:inter_token_latency_seconds",
    metrics.REQUEST_SECONDS: "vllm:e2e_request_latency_seconds",
    metrics.QUEUE_SECONDS: "vllm:request_queue_time_seconds",
}
"""Those that mean the same, in the same unit."""
VLLM_CACHE_INFO: Final = "vllm:cache_config_info"
BLOCK_TOKENS: Final = 16
"""Tokens of one of vLLM's blocks, as it has them by default: ours has no blocks, and counts single tokens."""
