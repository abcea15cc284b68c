"""Where a site lets its fetches go: mirrors in place of what a source names, and the hosts that may be connected to."""

from typing import Final

from slm_contract.source import FetchConfig, Mirror, at_mirror, mirror_of
from slm_runtime.errors import SourceUntrusted
from slm_runtime.models.sources.address import origin, redacted

_WEB: Final = ("https://", "http://")


class Route:
    def __init__(self, config: FetchConfig) -> None:
        self._mirrors = config.mirrors
        self._hosts = None if config.hosts is None else frozenset(config.hosts)

    def __call__(self, address: str) -> str:
        """What is asked for in place of a source or a URL; itself where no mirror stands for it.

        `oci://docker.io/` leads to `oci://registry.corp/hub/`, `https://host/` to `https://mirror/host/`.
        """
        found = self._find(address)
        if found is None or _is_web(found.mirror) != _is_web(found.source):
            return address
        return at_mirror(found, address)

    def endpoint(self, source: str, default: str) -> str:
        """The web server, without a slash at its end, that stands for all that a source's scheme names (`hf://`)."""
        found = self._find(source)
        leads = found is not None and _is_web(found.mirror) and not _is_web(found.source)
        return (found.mirror if found is not None and leads else default).rstrip("/")

    def check(self, url: str) -> None:
        """Refuse a host that the site doesn't name, wherever it was heard of.

        Raises
        ------
        SourceUntrusted
        """
        asked = origin(url)
        host = f"[{asked.host}]" if ":" in asked.host else asked.host
        if self._hosts is not None and not {host, f"{host}:{asked.port}"} & self._hosts:
            raise SourceUntrusted(
                f"{redacted(url)} is on a host that this site doesn't fetch from.",
                f"Have {host} added to fetch.hosts in the operator's configuration, or a mirror to fetch.mirrors.",
            )

    def _find(self, address: str) -> Mirror | None:
        return mirror_of(self._mirrors, address)


def _is_web(address: str) -> bool:
    return address.startswith(_WEB)
