"""What crosses the border between API process and engine process: requests, not steps.

Each message is a msgspec struct; a frame on the socket is one message in MessagePack, its length ahead of it.
An engine with a scheduler of its own implements this border directly.
Times are `time.monotonic()` in seconds: one clock for both processes, since they share a machine.
"""

from typing import Final, Literal

import msgspec

from slm_runtime.engine.loading import EngineConfig, Loaded, LoadFailed
from slm_runtime.engine.structs import Message, Value

FinishReason = Literal["stop", "length", "cancelled", "deadline", "constraint", "error", "unavailable"]
"""`constraint`: the request's own grammar came to a state from which nothing follows, or that is too large to go on from.
`error`: the engine failed while it worked on the request; `unavailable`: before it came to that."""


class Sampling(Value, kw_only=True):
    """How a token is chosen. The defaults leave the model's distribution as it is; each API sets its own."""

    temperature: float = 1.0
    """0 is greedy."""
    temperature_last: bool = False
    """True: truncate the distribution first (llama.cpp, Ollama); False: last (OpenAI, Hugging Face)."""
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = -1
    """Tokens that the three penalties look back on; -1: all."""
    penalize_prompt: bool = False
    """True: the window reaches into the prompt (Ollama); False: only what was generated counts (OpenAI)."""
    repeat_in_prompt: bool = False
    """True: `repeat_penalty` alone counts all of the prompt's tokens, too (vLLM)."""
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)
    seed: int | None = None
    """Choice i of a request draws from seed + i; None: from the operating system's entropy."""


class Constraint(Value):
    """Structured output: the text that is generated always matches."""

    kind: Literal["json_object", "json_schema", "json_schemas", "json_schema_or", "regex", "lark", "gbnf"]
    text: str = ""
    """The schema as JSON text, a list of schemas of which one matches, the pattern, or the grammar.

    Of a list each schema must be one that can be followed; with `json_schema_or` the first must, the others are if they can.
    """
    strict: bool = False
    """Keywords of a schema that can't be followed are refused; else they say nothing."""


class Picture(msgspec.Struct):
    """An image as it was sent: JPEG, PNG, WebP or GIF. Not an array, which tokens are."""

    data: bytes
    name: str
    """Where in the client's request it is."""


Prompt = list[str | list[int] | Picture]
"""Parts: text, tokenized in the engine process, token ids as they are, or images."""


class GenerateRequest(Value, kw_only=True):
    """One prompt, `n` choices that share its prefill."""

    prompt: Prompt
    max_tokens: int | None = None
    """None: until the context is full."""
    n: int = 1
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    stop: list[str] = msgspec.field(default_factory=list)
    """Generation ends before the first of these; it isn't part of the text."""
    stop_tokens: list[int] = msgspec.field(default_factory=list)
    ignore_eos: bool = False
    add_special: bool = True
    """Put the model's own tokens (BOS) around the prompt, unless it has them already."""
    parse_special: bool = True
    """Read `<|im_start|>` and the like in text as the tokens that they name: for rendered templates."""
    show_special: bool = False
    """Special tokens appear in the generated text: for tool formats that are marked by them."""
    logprobs: int | None = None
    """None: none; 0: of the chosen tokens; k: also the k likeliest in each place."""
    most_logprobs: int | None = None
    """That an answer can hold, of all choices and alternatives; None: any number."""
    constraint: Constraint | None = None
    adapter: int = 0
    """What the answer goes through; 0: the model alone."""
    foretold: str = ""
    """What the answer is likely to be, in part: it comes faster if it is."""
    keep_on_overflow: int | None = None
    """None: a prompt too long is refused; k: its first k tokens stay, the oldest of the rest go (Ollama)."""
    require_room: bool = False
    """True: a `max_tokens` that doesn't fit beside the prompt is refused (OpenAI); False: the context ends it."""
    deadline: float | None = None
    client: str = ""
    """Who asks: the scheduler is fair between clients."""


class Submit(Message):
    id: int
    request: GenerateRequest


class Cancel(Message):
    id: int


class EmbedRequest(Value, kw_only=True):
    inputs: list[str | list[int]]
    truncate: bool = False
    """False: an input longer than the context is refused; True: its end is cut off."""
    normalize: bool = True
    adapter: int = 0
    """As of GenerateRequest."""
    deadline: float | None = None
    client: str = ""


class Embed(Message):
    id: int
    request: EmbedRequest


class ScoreRequest(Value, kw_only=True):
    """How likely the model finds each token of the inputs, after those before it."""

    inputs: list[str | list[int]]
    top: int = 0
    """Of the likeliest tokens in each place, so many are told too."""
    most: int | None = None
    """Log probabilities, `top` + 1 a token; more are refused. None: any number."""
    add_special: bool = True
    """As of GenerateRequest, like the next two."""
    parse_special: bool = True
    adapter: int = 0
    deadline: float | None = None
    client: str = ""


class Score(Message):
    id: int
    request: ScoreRequest


class RankRequest(Value, kw_only=True):
    """How well each document answers its query."""

    queries: list[str]
    """One, or one for each document."""
    documents: list[str]
    truncate: bool = True
    """False: a pair longer than the context is refused; True: the document's end is cut off."""
    deadline: float | None = None
    client: str = ""


class Rank(Message):
    id: int
    request: RankRequest


class Tokenize(Message):
    id: int
    prompt: Prompt
    add_special: bool = False
    parse_special: bool = True


class Detokenize(Message):
    id: int
    tokens: list[int]


class Fault(Message):
    """The last frame of an engine process that can't go on."""

    message: str


class Accepted(Message):
    """The request is sound and waits for its turn."""

    id: int
    prompt_tokens: int


class Refused(Message):
    """The request itself can't be served, now or later."""

    id: int
    message: str
    param: str | None = None
    """The field of GenerateRequest or Sampling that is wrong."""
    code: Literal["invalid", "context_length_exceeded"] = "invalid"


class Busy(Message):
    """The queue is full."""

    id: int
    retry_after: float
    """Seconds, from measured speed."""
    waiting: int


class Started(Message):
    """These requests are in the batch from the next step on: they fail with the process, others wait."""

    ids: list[int]


class TokenLogprob(Value):
    token: int
    text: bytes
    """What the token stands for; may be part of a character."""
    logprob: float


class TokenLogprobs(Value):
    chosen: TokenLogprob
    top: list[TokenLogprob]


class Delta(Value):
    """New text of one choice: whole characters, and nothing that may still become a stop string."""

    id: int
    choice: int
    text: str
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None


class ChoiceFinished(Value):
    id: int
    choice: int
    reason: FinishReason
    completion_tokens: int
    stop: str | None = None
    """The stop string that ended it."""


class Usage(Value):
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose prefill was spared."""
    completion_tokens: int
    """Of all choices."""
    accepted_tokens: int = 0
    """Of what the client foretold, if it did; likewise the next one."""
    rejected_tokens: int = 0


class Timings(Value):
    """Seconds of one request."""

    queue: float
    prefill: float
    """From the first step it took part in to its first token."""
    decode: float


class RequestFinished(Value):
    """After the last ChoiceFinished of a request; nothing follows it."""

    id: int
    usage: Usage
    timings: Timings
    message: str | None = None
    """Where a choice ended with `error` or `deadline`: the sentence for people."""


Event = Delta | ChoiceFinished | RequestFinished
"""What a generation yields."""


class Stats(Value):
    """Counters are totals since the process started."""

    running: int = 0
    waiting: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    """By running sequences and by the prefix cache."""
    kv_cells_cached: int = 0
    """Of these, held by the prefix cache alone."""
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Guessed ahead of the step that computed them; of them, those that came true are the next."""
    accepted_tokens: int = 0
    preemptions: int = 0
    engine_seconds: float = 0
    """Inside the engine's own step."""
    busy_seconds: float = 0
    """In the step loop, engine included; the difference is scheduling, sampling and sending."""
    requests_running: int = 0


class StepOutput(Message):
    """All that one step made, for all requests: one frame, one wake-up."""

    deltas: list[Delta] = msgspec.field(default_factory=list)
    choices: list[ChoiceFinished] = msgspec.field(default_factory=list)
    finished: list[RequestFinished] = msgspec.field(default_factory=list)
    stats: Stats | None = None
    """Now and then, and whenever the engine falls idle."""


class Embedded(Message):
    id: int
    vectors: list[bytes]
    """Each as many numbers of 32 bits as the model's embedding length, little-endian."""
    prompt_tokens: int


class Ranked(Message):
    id: int
    scores: list[float]
    """One a document, as the model gives them: of any size, the higher the better."""
    prompt_tokens: int


class ScoredInput(Value):
    first: bytes
    """What its first token stands for: nothing comes before that it could be likely after."""
    rest: list[TokenLogprobs]


class Scored(Message):
    id: int
    inputs: list[ScoredInput]


class Tokenized(Message):
    id: int
    tokens: list[int]
    """Negative numbers stand for what images take."""


class Detokenized(Message):
    id: int
    text: str


ToEngine = EngineConfig | Submit | Cancel | Embed | Rank | Score | Tokenize | Detokenize
FromEngine = (
    Loaded
    | Fault
    | LoadFailed
    | Accepted
    | Refused
    | Busy
    | Started
    | StepOutput
    | Embedded
    | Ranked
    | Scored
    | Tokenized
    | Detokenized
)

CHARACTERS_A_TOKEN: Final = 32
"""No text has as many on average; what is longer than that for all of the context isn't read at all."""

MAX_FRAME: Final = 256 * 1024 * 1024
"""Bytes; a longer frame means that the stream is out of step."""
