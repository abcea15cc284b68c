"""Which hosts the fetch of a model asks, for firewalls and egress lists. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from slm_operator.model.source import (
    HttpsSource,
    HubSource,
    OciSource,
    OllamaSource,
    PypiSource,
    SourceError,
    parse_source,
)

_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {
    "huggingface.co": ("huggingface.co", "*.hf.co"),
    "registry.ollama.ai": ("registry.ollama.ai", "*.r2.cloudflarestorage.com"),
    "docker.io": (
        "registry-1.docker.io",
        "auth.docker.io",
        "production.cloudflare.docker.com",
        "production.cloudfront.docker.com",
        "docker-images-prod.*.r2.cloudflarestorage.com",
    ),
}
"""By the host that is asked: it, and where it sends its clients."""
_STORES: Final[Mapping[str, tuple[str, str]]] = {
    "s3": ("AWS_ENDPOINT_URL", "*.amazonaws.com"),
    "gs": ("", "storage.googleapis.com"),
    "az": ("AZURE_STORAGE_ENDPOINT", "*.blob.core.windows.net"),
}
"""By scheme: the variable that names another server, and the public one."""


def hosts_asked(uri: str, environment: Mapping[str, str], mirrors: Iterable[tuple[str, str]]) -> list[str]:
    """`host` or `host:port`; wildcards for those that nobody can name before, and words for what pip asks by itself.

    Nothing where nothing is fetched.

    Parameters
    ----------
    environment
        Of fetches in this site.
    mirrors
        Sources and what is asked instead: the longest that fits counts.
    """
    fitting = [pair for pair in mirrors if uri.startswith(pair[0])]
    if fitting:
        return [urlsplit(max(fitting, key=lambda pair: len(pair[0]))[1]).netloc]
    asked = _asked(uri, environment)
    return [] if asked is None else list(_PUBLIC.get(asked, (asked,)))


def _asked(uri: str, environment: Mapping[str, str]) -> str | None:
    try:
        source = parse_source(uri)
    except SourceError:
        return None
    match source:
        case HttpsSource(authority=authority):
            return authority
        case HubSource():
            return _host(environment.get("HF_ENDPOINT")) or "huggingface.co"
        case OllamaSource(place=place):
            first = (place or "").partition("/")[0]
            return first if "." in first or ":" in first else "registry.ollama.ai"
        case OciSource(registry=registry):
            return registry
        case PypiSource():
            return _host(environment.get("PIP_INDEX_URL")) or "pip's own index"
        case _:
            pass
    variable, public = _STORES.get(uri.partition("://")[0], ("", ""))
    return _host(environment.get(variable)) or public or None


def _host(url: str | None) -> str | None:
    """Without what is secret in it."""
    return None if not url else urlsplit(url).netloc.rpartition("@")[2]
