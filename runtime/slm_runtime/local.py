"""Serving without a cluster: the model comes into the user's cache folder, and only this machine may ask."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from slm_contract.config import AdapterConfig, AuthMode, ModelConfig, Part, RuntimeConfig
from slm_runtime.errors import ConfigError
from slm_runtime.fetching.fetch import Fetch, check_kind
from slm_runtime.fetching.headers import remote_facts
from slm_runtime.fetching.inspect import local_model
from slm_runtime.models.folder import ModelFolder, storage_errors
from slm_runtime.models.sources.address import is_loopback
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places


def local_places(places: Places) -> Places:
    """Move what isn't already moved to where a user without a cluster has it."""
    standard = Places()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "slm-operator", "models")
    return replace(
        places,
        local=True,
        host="127.0.0.1" if places.host == standard.host else places.host,
        model_dir=cache if places.model_dir == standard.model_dir else places.model_dir,
    )


def local_adapter(named: str) -> AdapterConfig:
    """Read `NAME=SOURCE`, a URI or a file.

    Raises
    ------
    ConfigError
    """
    name, _, source = named.partition("=")
    if not name or not source:
        raise ConfigError(f"--adapter {named!r} names no adapter.", "Write --adapter NAME=FILE or NAME=URI.")
    return AdapterConfig(name=name, source=_uri(source))


def local_projector(named: str) -> ModelConfig:
    return ModelConfig(name="projector", source=_uri(named), part=Part.PROJECTOR)


def local_config(model: ModelConfig, settings: Mapping[str, Any], host: str) -> RuntimeConfig:
    """Make a configuration; without keys only where nobody but this machine can ask.

    Raises
    ------
    ConfigError
    """
    auth = AuthMode.NONE if is_loopback(host) else AuthMode.API_KEY
    try:
        return RuntimeConfig(model=model, auth=auth, **settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{first['loc'][0]} can't be {first['input']!r}: " if first["loc"] else ""
        raise ConfigError(f"{where}{first['msg']}.") from None


def fetch_local(config: RuntimeConfig, places: Places) -> None:
    """Have the model and its adapters where `serve` looks for them; a `file://` source is linked to, not copied.

    Raises
    ------
    RuntimeFailure
    """
    for each in (config.model, *config.companions):
        if each.source.startswith("file://"):
            _link(each, Path(unquote(urlsplit(each.source).path)), places)
        else:
            print(f"Fetching {each.source} into {places.model_dir}", file=sys.stderr)
            Fetch(each, Site(places)).run()
    name = config.model.name
    base = f"http://{places.host}:{places.api_port}"
    print(f"Serving {name} on {base}. When it is ready, try:", file=sys.stderr)
    question = "What is the capital of France?"
    path, asked = "chat/completions", f'"messages": [{{"role": "user", "content": "{question}"}}]'
    if ModelFolder(places.model_dir, config.model).require().facts.encoder:
        path, asked = "embeddings", f'"input": "{question}"'
    print(
        f"  curl {base}/v1/{path} -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{name}", {asked}}}\'',
        file=sys.stderr,
    )


def _uri(named: str) -> str:
    """A URI, or a file's."""
    return named if "://" in named else Path(named).resolve().as_uri()


def _link(model: ModelConfig, path: Path, places: Places) -> None:
    remote = local_model(path, Asked.by(model))
    facts = remote_facts(remote, places.identities)
    check_kind(facts, model)
    folder = ModelFolder(places.model_dir, model)
    with storage_errors(folder.path), folder.locked():
        for each in remote.files:
            folder.link(each.path, Path(each.artifact.payload.where))
        folder.publish(facts)
