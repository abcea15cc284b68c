"""What the API process knows: the model it serves, the engine behind it, and how far along its life it is."""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from slm_contract.config import AuthMode, PromptConfig, PromptParameters, RuntimeConfig
from slm_contract.report import (
    Acceleration,
    CanaryReport,
    Failure,
    MemoryUse,
    ModelFacts,
    Performance,
    RuntimeReport,
)
from slm_runtime.api.http.auth import KeyRing
from slm_runtime.api.http.problems import BadRequest, ModelNotFound, Unavailable
from slm_runtime.api.openai.stored import StoredResponses
from slm_runtime.api.spans import Spans
from slm_runtime.engine.client import EngineClient
from slm_runtime.errors import AccelerationDegraded, ConfigError, KeysMissing, of_engine
from slm_runtime.metrics import Gauges, Metrics, ModelInfo
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.version import VERSION

if TYPE_CHECKING:
    from slm_runtime.api.conversation.remote_pictures import RemotePictures

Phase = Literal["Loading", "Ready", "Draining", "Failed"]
Task = Literal["generation", "embedding", "ranking"]
_WAYS: Final[dict[Task, str]] = {
    "generation": "text (/v1/chat/completions, /api/chat)",
    "embedding": "vectors (/v1/embeddings, /api/embed)",
    "ranking": "scores (/v1/rerank, /v1/score)",
}

STALL_SECONDS: Final = 120.0
"""An engine that owes an answer and gives no sign of life for this long won't: kubelet may restart it."""
LOOP_SECONDS: Final = 30.0
"""Likewise for the event loop that answers clients."""
LOADING_RETRY_SECONDS: Final = 2.0


class Served(NamedTuple):
    """What clients may ask for by a name."""

    name: str
    adapter: int
    """As the engine numbers it; 0: the model itself."""

    @property
    def tagged_name(self) -> str:
        """The name as Ollama's clients look for it: they put `:latest` to one without a tag."""
        return _tagged(self.name)


@dataclass
class Serving:
    """Written by the API's event loop alone; the operations port's thread only reads."""

    config: RuntimeConfig
    model: ModelFacts
    engine: EngineClient
    keys: KeyRing | None
    """None where `auth.mode: None` is written."""
    adapters: Sequence[ModelFacts] = ()
    """Of each in `config.adapters`, in their order."""
    projector: ModelFacts | None = None
    """What pictures are read with."""
    local: bool = False
    """No cluster stands behind it: whoever asks has started it on a command line."""
    created: int = field(default_factory=lambda: int(time.time()))
    chat: ChatFormat | None = None
    """Set with the first load."""
    performance: Performance | None = None
    """Set by the warm-up, whose first token makes the pod ready."""
    keep_alive: float = -1.0
    """Seconds that Ollama's clients wish the model to stay; negative: for ever, 0: it shall go. `ps` shows it, nothing
    else."""
    spans: Spans | None = None
    """Where spans of requests are sent; None: nowhere."""
    draining: bool = False
    canaries: dict[str, CanaryReport] = field(default_factory=dict)
    """What became of each that was asked, by its name."""
    asked: float = -math.inf
    """When a client last asked for something that needs a key; by `time.monotonic`."""
    heartbeat: float = field(default_factory=time.monotonic)
    stored: StoredResponses = field(init=False)
    remote_pictures: "RemotePictures | None" = field(init=False, default=None)
    """None: nothing is fetched for clients."""
    metrics: Metrics = field(init=False)
    fingerprint: str = field(init=False)
    """OpenAI's `system_fingerprint`: changes with whatever may change the text that a seed gives."""

    def __post_init__(self) -> None:
        if (self.config.auth is AuthMode.API_KEY) != (self.keys is not None):
            raise ValueError("the config's auth mode and the key ring disagree")
        self.fingerprint = f"fp_{hashlib.sha256(self.config.to_json().encode()).hexdigest()[:10]}"
        if self.config.image_origins:
            # Few need what it takes a while to import.
            from slm_runtime.api.conversation.remote_pictures import RemotePictures

            self.remote_pictures = RemotePictures(self.config.image_origins)
        self.stored = StoredResponses(self.config.stored_responses or 0)
        self.metrics = Metrics(
            self._gauges, vllm=self.name if "vLLM" in (self.config.metric_aliases or ()) else None
        )

    def _gauges(self) -> Gauges:
        loaded = self.chat is not None
        return Gauges(
            stats=self.engine.stats,
            restarts=self.engine.restarts,
            ready=self.unready() is None,
            loaded=self.engine.state == "Ready",
            pid=self.engine.pid,
            memory=self.engine.info.memory if loaded and not self.unloaded else None,
            info=self._model_info() if loaded else None,
        )

    def _model_info(self) -> ModelInfo:
        info = self.engine.info
        return ModelInfo(
            model=self.name,
            format=self.model.format,
            quantization=self.model.quantization or "",
            engine=info.engine,
            hardware_class=self.config.hardware.hardware_class,
            device=info.device,
            version=VERSION,
        )

    @property
    def name(self) -> str:
        """The model's name, as clients ask for it."""
        return self.config.model.name

    @property
    def served(self) -> list[Served]:
        """The model, and after it the adapters by their numbers."""
        names = [self.name, *(each.name for each in self.config.adapters or ())]
        return [Served(name, number) for number, name in enumerate(names)]

    @property
    def prompt(self) -> PromptConfig:
        """What requests get that don't say."""
        return self.config.prompt or PromptConfig()

    @property
    def parameters(self) -> PromptParameters:
        return self.prompt.parameters or PromptParameters()

    def stop_strings(self, asked: list[str] | None) -> list[str]:
        """A request's own, else those that the deployment names."""
        return list(self.prompt.stop or ()) if asked is None else asked

    @property
    def unloaded(self) -> bool:
        """The model isn't in memory because nobody asked; whoever asks has it loaded again."""
        return self.engine.state in {"Unloaded", "Reloading"}

    @property
    def phase(self) -> Phase:
        if self.engine.state == "Failed":
            return "Failed"
        if self.draining:
            return "Draining"
        return "Loading" if self.performance is None else "Ready"

    def facts(self, served: Served) -> ModelFacts:
        """Of the file that makes it what it is."""
        return self.adapters[served.adapter - 1] if served.adapter else self.model

    def require_model(self, asked: str) -> Served:
        """Find what a client asks for by its name.

        Raises
        ------
        ModelNotFound
        """
        found = self.find(asked)
        if found is None:
            raise ModelNotFound(asked, [each.name for each in self.served])
        return found

    def find(self, asked: str) -> Served | None:
        """As Ollama reads names: upper case is lower, `:latest` and its registry's library go without saying."""
        name = _plain_name(asked)
        return next((each for each in self.served if _plain_name(each.name) == name), None)

    def require_chat(self) -> ChatFormat:
        """Raise Unavailable until the model has made its first token, and BadRequest if it makes none."""
        chat = self.require_loaded()
        if not self.engine.info.generates:
            raise self._unable("generate text", "It is an encoder")
        return chat

    def require_embeddings(self) -> None:
        """Likewise of vectors."""
        self.require_loaded()
        if not self.engine.info.embeds:
            raise self._unable("embeddings", "It isn't made for them")

    def require_ranking(self) -> None:
        """Likewise of scores for pairs of texts."""
        self.require_loaded()
        if not self.engine.info.ranks:
            raise self._unable("ranking", "It is no reranker")

    def _unable(self, what: str, why: str) -> BadRequest:
        """In Ollama's words, which clients look for, and with what can be asked instead."""
        ways = " or ".join(_WAYS[task] for task in self.tasks)
        return BadRequest(
            f"{self.name!r} does not support {what}. {why}" + (f": ask it for {ways}." if ways else "."),
            param="model",
            code="unsupported_model",
        )

    @property
    def tasks(self) -> list[Task]:
        """What the model that is loaded can be asked for."""
        info = self.engine.info
        found: list[tuple[Task, bool]] = [
            ("generation", info.generates),
            ("embedding", info.embeds),
            ("ranking", info.ranks),
        ]
        return [task for task, able in found if able]

    def require_loaded(self) -> ChatFormat:
        """Raise Unavailable until the model has shown that it answers."""
        if self.chat is None or self.performance is None:
            raise Unavailable(
                f"The model {self.name!r} is being loaded; try again in a few seconds.",
                code="model_loading",
                retry_after=LOADING_RETRY_SECONDS,
            )
        return self.chat

    def not_started(self) -> str | None:
        """Say why start-up isn't over; None once a first token was made."""
        if self.engine.state == "Failed":
            return f"the engine failed: {self.engine.failure}"
        return "the model is being loaded" if self.performance is None else None

    def not_alive(self) -> str | None:
        """Say why a restart would help; never because of how much there is to do."""
        if self.engine.state == "Failed":
            return f"the engine failed: {self.engine.failure}"
        if self.engine.stalled_seconds > STALL_SECONDS:
            return f"the engine has made no progress for {self.engine.stalled_seconds:.0f} s"
        behind = time.monotonic() - self.heartbeat
        return f"the API has been stuck for {behind:.0f} s" if behind > LOOP_SECONDS else None

    def unready(self) -> str | None:
        """Say why clients should be sent elsewhere."""
        reason = self.not_started()
        if reason is not None:
            return reason
        if self.draining and (dead := self.not_alive()) is not None:
            return f"the pod is being stopped, and {dead}"
        if self.engine.state != "Ready" and not self.unloaded:
            return f"the engine is restarting: {self.engine.failure}"
        failure = self.failure()
        return failure.message if failure is not None else None

    def failure(self) -> Failure | None:
        """What keeps the pod from serving until a person changes something."""
        if self.engine.state == "Failed":
            failed = of_engine(self.engine.failure_reason, self.engine.failure or "The engine failed.")
            return failed.to_failure()
        if self.keys is not None and not len(self.keys):
            return KeysMissing("Every request needs an API key, and the key Secret holds none.").to_failure()
        if self.prompt.template is not None and self.chat is not None and self.chat.problem is not None:
            return ConfigError(self.chat.problem, "Correct spec.model.prompt.template.").to_failure()
        acceleration = self.acceleration()
        if acceleration and acceleration.degraded and self.config.hardware.on_degraded == "Fail":
            return AccelerationDegraded(
                f"The model runs on {acceleration.provider} ({acceleration.device}) instead of "
                f"{self.config.hardware.provider}, with {acceleration.layers} of "
                f"{acceleration.layers_total} layers offloaded."
            ).to_failure()
        return None

    def acceleration(self) -> Acceleration | None:
        """What the engine really runs on; None before it has loaded."""
        if self.chat is None:
            return None
        info, wanted = self.engine.info, self.config.hardware
        return Acceleration(
            hardware_class=wanted.hardware_class,
            device=info.device,
            provider=info.provider,
            layers=info.layers_offloaded,
            layers_total=info.layers_total,
            memory_free=info.device_free if info.device_total else None,
            memory_total=info.device_total or None,
            degraded=info.provider != wanted.provider,
        )

    def report(self) -> RuntimeReport:
        """What the operator reads."""
        if self.chat is None:
            return RuntimeReport(command="serve", phase=self.phase, model=self.model, failure=self.failure())
        info = self.engine.info
        return RuntimeReport(
            command="serve",
            phase=self.phase,
            model=self.model,
            projector=self.projector,
            context_length=info.context_length,
            acceleration=self.acceleration(),
            memory=None
            if self.unloaded
            else MemoryUse(
                weights=info.memory.weights,
                kv_cache=info.memory.kv_cache,
                compute=info.memory.compute,
                resident=info.memory.resident,
                snapshots=info.memory.snapshots,
            ),
            performance=self.performance,
            failure=self.failure(),
            engine_restarts=self.engine.restarts,
            unloaded=self.unloaded,
            canaries=tuple(self.canaries.values()) or None,
        )


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _plain_name(name: str) -> str:
    return _tagged(name).casefold().removeprefix("registry.ollama.ai/library/").removeprefix("library/")
