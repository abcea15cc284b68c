"""Where things are for this process: the contract's places, each of which an environment variable may move.

In a pod nothing is moved. On a developer's machine and in tests everything is.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm_contract import places as contract
from slm_runtime.errors import ConfigError
from slm_runtime.ports import port


@dataclass(frozen=True)
class Places:
    host: str = "0.0.0.0"
    """The address to listen on."""
    api_port: int = contract.API_PORT
    ops_port: int = contract.OPS_PORT
    model_dir: Path = Path(contract.MODEL_DIR)
    keys_dir: Path = Path(contract.KEYS_DIR)
    credentials_dir: Path = Path(contract.CREDENTIALS_DIR)
    ca_bundle: Path = Path(contract.CA_BUNDLE)
    source_dir: Path = Path(contract.SOURCE_DIR)
    signers: Path = Path(contract.SIGNERS)
    identities: Path = Path(contract.IDENTITIES)
    plain_dir: Path = Path(contract.PLAIN_DIR)
    local: bool = False
    """No cluster put it there: somebody has started it on a command line."""
    termination_message: Path = Path(contract.TERMINATION_MESSAGE)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Places":
        """Read `SLM_HOST`, `SLM_API_PORT`, `SLM_MODEL_DIR` and so on: `SLM_` and the field's name.

        Raises
        ------
        ConfigError
            A port is no port.
        """

        def path(name: str, default: Path) -> Path:
            return Path(environment.get(name) or default)

        return cls(
            host=environment.get("SLM_HOST") or cls.host,
            api_port=_port(environment, "SLM_API_PORT", cls.api_port),
            ops_port=_port(environment, "SLM_OPS_PORT", cls.ops_port),
            model_dir=path("SLM_MODEL_DIR", cls.model_dir),
            keys_dir=path("SLM_KEYS_DIR", cls.keys_dir),
            credentials_dir=path("SLM_CREDENTIALS_DIR", cls.credentials_dir),
            ca_bundle=path("SLM_CA_BUNDLE", cls.ca_bundle),
            source_dir=path("SLM_SOURCE_DIR", cls.source_dir),
            signers=path("SLM_SIGNERS", cls.signers),
            identities=path("SLM_IDENTITIES", cls.identities),
            plain_dir=path("SLM_PLAIN_DIR", cls.plain_dir),
            termination_message=path("SLM_TERMINATION_MESSAGE", cls.termination_message),
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    try:
        return port(environment.get(name) or str(default))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}.", "Write a number from 0 (any free port) to 65535.") from None
