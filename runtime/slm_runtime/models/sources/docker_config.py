"""The credentials of a registry: the Secret's own entries, or what docker and Kubernetes write for image pulls."""

import base64
import json
import re
from typing import Any, Final

from slm_runtime.errors import ConfigError
from slm_runtime.models.sources.site import Credentials, Site

DOCKER_HUB: Final = {"docker.io", "index.docker.io", "registry-1.docker.io"}


def registry_credentials(site: Site, host: str, repository: str) -> Credentials:
    """What the credentials Secret has for a registry: its own entries, else what docker's configuration says in it.

    Raises
    ------
    ConfigError
        Docker's configuration can't be read.
    """
    own = site.credentials()
    if own.authorization() is not None:
        return own
    for name in (".dockerconfigjson", "config.json"):
        text = site.credential(name)
        if text is not None:
            return _of_docker(text, name, host, repository)
    return own


def _of_docker(text: str, name: str, host: str, repository: str) -> Credentials:
    """Read the entry that fits best: one for a part of a registry goes before that for all of it."""
    try:
        entries = json.loads(text)["auths"]
        fitting = {
            prefix: entry
            for key, entry in entries.items()
            if (prefix := _fits(key, host, repository)) is not None
        }
        return _credentials(fitting[max(fitting, key=len)]) if fitting else Credentials()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"{name} in the credentials Secret isn't what docker writes.",
            "Make it with `kubectl create secret docker-registry`, or with `username` and `password`.",
        ) from None


def _fits(key: str, host: str, repository: str) -> str | None:
    """The part of a repository's path that an entry is for; None: it is for another registry."""
    place, _, path = re.sub(r"^https?://", "", key).partition("/")
    path = re.sub(r"^v[12](/|$)", "", path).strip("/")
    same = place == host or {place, host} <= DOCKER_HUB
    return path if same and (not path or f"{repository}/".startswith(f"{path}/")) else None


def _credentials(entry: dict[str, Any]) -> Credentials:
    if entry.get("registrytoken"):
        return Credentials(token=str(entry["registrytoken"]))
    if entry.get("auth"):
        user, _, password = _decoded(str(entry["auth"])).partition(":")
        return Credentials(username=user, password=password)
    if entry.get("username"):
        return Credentials(username=str(entry["username"]), password=str(entry.get("password", "")))
    return Credentials()


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()
