"""What the pod says of its site: trusted CAs, credentials, the Python index.

All of it is read anew for every attempt, since Secrets and ConfigMaps change under a running pod.
"""

import configparser
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from slm_contract.places import FETCH_ENV, RETENTION_ENV
from slm_contract.retention import Retention
from slm_contract.source import FetchConfig
from slm_runtime.errors import ConfigError
from slm_runtime.models.sources.address import Origin, basic
from slm_runtime.models.sources.http import HttpClient, Login, Refusal
from slm_runtime.models.sources.route import Route
from slm_runtime.places import Places


@dataclass(frozen=True)
class Credentials:
    """What the credentials Secret holds."""

    token: str | None = None
    username: str | None = None
    password: str | None = None

    def authorization(self, token_user: str | None = None) -> str | None:
        """Return an Authorization header; `token_user`: the user name under which a server takes tokens by Basic."""
        if self.token is not None:
            return basic(token_user, self.token) if token_user else f"Bearer {self.token}"
        if self.username is not None:
            return basic(self.username, self.password or "")
        return None


@dataclass(frozen=True)
class PipSettings:
    """What pip would be told, by its environment variables or else its configuration files."""

    index_url: str | None = None
    """None: pip's own default, unless `no_index`."""
    extra_index_urls: tuple[str, ...] = ()
    no_index: bool = False
    find_links: tuple[str, ...] = ()
    trusted_hosts: frozenset[str] = frozenset()
    """May be asked by plain http. TLS is verified always: a CA bundle is the way to trust a private one."""
    ca: Path | None = None


@dataclass(frozen=True)
class Site:
    places: Places
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def tls(self) -> ssl.SSLContext:
        """Trust the system's CAs (or SSL_CERT_FILE), the bundle of the pod, and pip's own.

        Raises
        ------
        ConfigError
            A bundle that is named can't be used.
        """
        context = ssl.create_default_context()
        for bundle in self.ca_bundles():
            try:
                context.load_verify_locations(bundle)
            except OSError as error:
                raise ConfigError(
                    f"The CA bundle {bundle} can't be used: {error}.",
                    "Put certificates in PEM form into the bundle's ConfigMap.",
                ) from error
        return context

    def ca_bundles(self) -> tuple[Path, ...]:
        """Return the files of CAs that are trusted besides the system's."""
        own, named = self.places.ca_bundle, self.pip().ca
        return (*((own,) if own.exists() else ()), *((named,) if named else ()))

    @property
    def fetch(self) -> FetchConfig:
        """What the site says of all fetches.

        Raises
        ------
        ConfigError
        """
        try:
            return FetchConfig.model_validate_json(self.environment.get(FETCH_ENV) or "{}")
        except ValidationError as error:
            raise ConfigError(
                f"{FETCH_ENV} can't be used: {error.errors(include_url=False)[0]['msg']}."
            ) from None

    @property
    def retention(self) -> Retention | None:
        """Which models of the volume stay; None: all of them.

        Raises
        ------
        ConfigError
        """
        text = self.environment.get(RETENTION_ENV)
        try:
            return Retention.model_validate_json(text) if text else None
        except ValidationError as error:
            raise ConfigError(
                f"{RETENTION_ENV} can't be used: {error.errors(include_url=False)[0]['msg']}."
            ) from None

    @property
    def route(self) -> Route:
        return Route(self.fetch)

    def client(
        self,
        authorizations: Mapping[Origin, str] | None = None,
        plain_hosts: frozenset[str] = frozenset(),
        *,
        login: Login | None = None,
        refusal: Refusal = lambda _: None,
    ) -> HttpClient:
        """HTTP as this site allows it.

        Parameters
        ----------
        authorizations
            The header that each origin gets, and no other. Where a mirror stands for the source, it is the mirror's.
        plain_hosts
            Hosts that may be asked without TLS.
        refusal
            What a refusal means in the dialect of the source's servers.
        login
            What to answer to a 401.
        """
        return HttpClient(
            self.tls(),
            route=self.route,
            authorizations=authorizations,
            login=login,
            plain_hosts=plain_hosts,
            refusal=refusal,
        )

    def credentials(self) -> Credentials:
        return Credentials(*(self.credential(name) for name in ("token", "username", "password")))

    def pip(self) -> PipSettings:
        values = _pip_values(self.environment)
        return PipSettings(
            index_url=values.get("index-url") or None,
            extra_index_urls=tuple(values.get("extra-index-url", "").split()),
            no_index=values.get("no-index", "").lower() in {"1", "true", "yes", "on"},
            find_links=tuple(values.get("find-links", "").split()),
            trusted_hosts=frozenset(values.get("trusted-host", "").split()),
            ca=Path(values["cert"]) if values.get("cert") else None,
        )

    def credential(self, name: str) -> str | None:
        """Return an entry of the credentials Secret.

        Raises
        ------
        ConfigError
            It is there, but can't be read.
        """
        try:
            return (self.places.credentials_dir / name).read_text().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The credential {name!r} can't be read: {error}.", "Look at the credentials Secret."
            ) from error


def _pip_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options: an environment variable wins over a file, a later file over an earlier one."""
    values: dict[str, str] = {}
    for path in _pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} can't be read: {error}.", "Correct pip's configuration file."
            ) from error
        if parser.has_section("global"):
            values |= {key.replace("_", "-"): value for key, value in parser.items("global")}
    for key, value in environment.items():
        if key.startswith("PIP_") and value:
            values[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return values


def _pip_files(environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get("HOME", "/nonexistent"))
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        config / "pip/pip.conf",
    ]
    return [*files, Path(sys.prefix, "pip.conf"), *([Path(named)] if named else [])]
