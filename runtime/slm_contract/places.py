"""Where things are in a runtime pod: ports, paths, environment variables, HTTP paths, exit codes."""

from enum import IntEnum
from typing import Final

API_PORT: Final = 8080
"""OpenAI and Ollama clients; every route asks for a key unless the config says otherwise."""

OPS_PORT: Final = 8081
"""Probes, metrics and the report; inference can't block it."""

STARTUP_PATH: Final = "/startupz"
LIVENESS_PATH: Final = "/livez"
READINESS_PATH: Final = "/readyz"
METRICS_PATH: Final = "/metrics"
REPORT_PATH: Final = "/report"

CONFIG_ENV: Final = "SLM_CONFIG"
"""The RuntimeConfig as JSON: in the pod template, so that a change rolls by itself."""

FETCH_ENV: Final = "SLM_FETCH"
"""The FetchConfig as JSON, of the containers that fetch alone."""

RETENTION_ENV: Final = "SLM_RETENTION"
"""The Retention as JSON, of containers that fetch alone; without it every model stays."""

SOURCE_DIR: Final = "/source"
"""The source itself, read-only, where it is a volume: the claim of `pvc://`, an image that kubelet has pulled."""

MODEL_DIR: Final = "/models"
"""The model volume: writable for `fetch`, read-only for `serve`."""

KEYS_DIR: Final = "/etc/slm/keys"
"""The API key Secret: one file a key, any file name; read anew when it changes."""

CREDENTIALS_DIR: Final = "/etc/slm/credentials"
"""The source's credentials Secret: `token`, or `username` and `password`; of registries also `.dockerconfigjson`."""

CA_BUNDLE: Final = "/etc/slm/ca/ca.crt"
"""CAs for the sources, PEM; used when the file exists."""

SIGNERS: Final = "/etc/slm/signers/signers.pem"
"""Public keys or certificates of those whose signatures are trusted, PEM; in the containers that fetch alone."""

IDENTITIES: Final = "/etc/slm/identities/identities.txt"
"""Who may decrypt an encrypted model, as `age-keygen` writes it; in the containers that fetch alone."""

PLAIN_DIR: Final = "/plain"
"""The model in plain, in memory: writable for `fetch`, read-only for `serve`; only where a spec has it decrypted."""

TERMINATION_MESSAGE: Final = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT: Final = 4096
"""Bytes; kubelet cuts what is longer."""


class ExitCode(IntEnum):
    """Why a runtime process ended, for `lastState.terminated.exitCode`."""

    OK = 0
    CONFIG_INVALID = 10
    FETCH_PERMANENT = 20
    FETCH_TRANSIENT = 21
    MODEL_INVALID = 30
    OUT_OF_MEMORY = 31
    PORT_IN_USE = 40
    ENGINE_FAILED = 50
