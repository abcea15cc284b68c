"""The process's configuration: settings from the chart's file, who and where we are from the environment."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import yaml
from pydantic import ValidationError

from slm_operator.model.allowed import RuleError, host_rule, image_rule, mirror_rule, source_rule
from slm_operator.model.catalog import sources_of
from slm_operator.model.source import SourceError, name_in_catalog, parse_source
from slm_operator.settings import Settings

CONFIG_ENV: Final = "SLM_OPERATOR_CONFIG"
DEFAULT_PORT: Final = 8080
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(Exception):
    """What is wrong, where, and what to write instead: one sentence."""


@dataclass(frozen=True)
class Config:
    """Everything that is read once, at start."""

    settings: Settings
    lease_namespace: str
    lease_name: str
    identity: str
    """Of this process in the Lease. A pod's name, so that a restarted container goes on at once."""
    port: int
    """Health and metrics."""
    log_level: LogLevel


def load(environ: Mapping[str, str]) -> Config:
    """Read the configuration.

    Raises
    ------
    ConfigError
        The file is missing or wrong, or a variable is.
    """
    path = environ.get(CONFIG_ENV)
    if not path:
        raise ConfigError(f"{CONFIG_ENV} isn't set: give it the path of the operator's settings (YAML)")
    return Config(
        settings=load_settings(Path(path)),
        lease_namespace=environ.get("POD_NAMESPACE") or "default",
        lease_name=environ.get("SLM_LEASE_NAME") or "slm-operator",
        identity=environ.get("POD_NAME") or socket.gethostname(),
        port=_port(environ.get("SLM_OPERATOR_PORT")),
        log_level=_level(environ.get("SLM_LOG_LEVEL")),
    )


def load_settings(path: Path) -> Settings:
    """Settings from a YAML file.

    Raises
    ------
    ConfigError
        The first thing that is wrong with it, by its path in the file.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a map of settings, found {type(document).__name__}")
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        first, *more = error.errors()
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        others = f" (and {len(more)} more)" if more else ""
        raise ConfigError(f"{path}: {where.lstrip('.')}: {first['msg']}{others}") from error
    _check_rules(path, settings)
    _check_catalog(path, settings)
    return settings


def _check_rules(path: Path, settings: Settings) -> None:
    fetch = settings.fetch
    mirrors = {f"[{number}]": each for number, each in enumerate(fetch.mirrors)}
    for where, rules, read in (
        ("fetch.allowedSources", _numbered(fetch.allowed_sources), source_rule),
        ("fetch.hosts", _numbered(fetch.hosts), host_rule),
        ("fetch.mirrors", {f"{at}.source": each.source for at, each in mirrors.items()}, source_rule),
        ("fetch.mirrors", {f"{at}.mirror": each.mirror for at, each in mirrors.items()}, mirror_rule),
        ("allowedImagePrefixes", _numbered(settings.allowed_image_prefixes), image_rule),
    ):
        for at, rule in rules.items():
            try:
                read(rule)
            except RuleError as error:
                raise ConfigError(f"{path}: {where}{at}: {error}") from error


def _numbered(rules: Sequence[str]) -> dict[str, str]:
    return {f"[{number}]": rule for number, rule in enumerate(rules)}


def _check_catalog(path: Path, settings: Settings) -> None:
    for name, entry in settings.catalog.items():
        for source in (f"catalog://{name}", *sources_of(entry)):
            try:
                parse_source(source)
            except SourceError as error:
                raise ConfigError(f"{path}: catalog.{name}: {error}") from error
        if any(map(name_in_catalog, sources_of(entry))):
            raise ConfigError(f"{path}: catalog.{name}: name a source, not another entry of the catalog")


def _port(value: str | None) -> int:
    try:
        port = int(value or DEFAULT_PORT)
    except ValueError:
        port = -1
    if not 0 <= port < 65536:
        raise ConfigError(f"SLM_OPERATOR_PORT is {value!r}: give it a port number, or leave it out for 8080")
    return port


def _level(value: str | None) -> LogLevel:
    for level in get_args(LogLevel):
        if (value or "info").lower() == level:
            return level  # type: ignore[no-any-return]
    raise ConfigError(f"SLM_LOG_LEVEL is {value!r}: use one of {', '.join(get_args(LogLevel))}")
