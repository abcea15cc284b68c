"""How S3, Google Cloud Storage and Azure are asked: which server, by whose rights, trusting whom.

Which server a bucket's name stands for is the site's to say, by its environment or a mirror. Were it for a credentials
Secret to say, rules on buckets would rule nothing, and credentials would be sent to whomever a Secret names.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from slm_runtime.errors import ConfigError, SourceInvalid, SourceUntrusted
from slm_runtime.models.sources.address import check_encrypted, check_public, origin, redacted
from slm_runtime.models.sources.site import Site

if TYPE_CHECKING:
    # Names of its stubs alone.
    from obstore.store import ClientConfig, RetryConfig

_BUCKET: Final = re.compile(r"[a-z0-9A-Z][a-z0-9A-Z._-]{1,221}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_ANSWER_SECONDS: Final = 30
_CONNECT_SECONDS: Final = 10
_REQUEST_HOURS: Final = 1
_TRUE: Final = {"1", "true", "yes", "on"}


class OpenStore(NamedTuple):
    store: ObjectStore
    server: str
    """Who is asked, for messages."""


class _Rights(NamedTuple):
    """By whose rights a store is asked; with none of them, anonymously."""

    options: Mapping[str, Any] = {}
    """What the client is told of the credentials Secret."""
    environment: bool = False
    """Whether the client finds rights in the site's environment."""

    @property
    def anonymous(self) -> bool:
        return not self.options and not self.environment


def open_store(uri: str, site: Site) -> OpenStore:
    """Make a client for the bucket of a URI. Nothing is asked yet.

    Raises
    ------
    SourceInvalid
        The name can't be a bucket's.
    SourceUntrusted
        The site doesn't allow its server.
    ConfigError
        Credentials or settings can't be used.
    """
    scheme, _, rest = uri.partition("://")
    bucket = rest.partition("/")[0]
    if scheme not in _STORES:
        raise ConfigError(f"A mirror leads to {uri[:200]!r}, which is no bucket.", "Correct fetch.mirrors.")
    if not _BUCKET.fullmatch(bucket):
        raise SourceInvalid(f"{bucket[:80]!r} can't be the name of a bucket.")
    try:
        return _STORES[scheme](uri, bucket, site)
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"{scheme}://{bucket} can't be asked: {_reason(error)}.",
            "Look at the credentials Secret, the CA bundle, and the operator's fetch.env.",
        ) from None


def _s3(uri: str, bucket: str, site: Site) -> OpenStore:
    environment = site.environment
    region = (
        _secret(site, "AWS_REGION", "AWS_DEFAULT_REGION")
        or _first(environment, "AWS_REGION", "AWS_DEFAULT_REGION")
        or "us-east-1"
    )
    if not _REGION.fullmatch(region):
        raise ConfigError(f"AWS_REGION is {region[:80]!r}, which can't be a region.")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    default = _first(environment, *names) or f"https://s3.{region}.{domain}"
    endpoint = _endpoint(uri, default, site, "AWS_ALLOW_HTTP")
    _check_same(site, names, endpoint, "AWS_ENDPOINT_URL_S3")
    rights = _s3_rights(site)
    by_host = _is_true(environment, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
    if by_host:
        endpoint = endpoint.replace("://", f"://{bucket}.", 1)
        site.route.check(endpoint)
    store = S3Store(
        bucket,
        aws_endpoint_url_s3=endpoint,
        virtual_hosted_style_request=by_host,
        region=region,
        skip_signature=rights.anonymous,
        client_options=_client(site, endpoint),
        retry_config=_RETRY,
        **rights.options,
    )
    return OpenStore(store, redacted(endpoint))


def _s3_rights(site: Site) -> _Rights:
    key = _secret(site, "AWS_ACCESS_KEY_ID", "username")
    secret = _secret(site, "AWS_SECRET_ACCESS_KEY", "password")
    if (key is None) != (secret is None):
        raise ConfigError(
            "The credentials Secret has one half of an access key.",
            "Put both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into it.",
        )
    if key is not None:
        token = site.credential("AWS_SESSION_TOKEN")
        return _Rights(
            _provider({"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": None})
        )
    return _Rights(
        environment=_has(
            site.environment,
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
            ("AWS_METADATA_ENDPOINT",),
        )
    )


def _google(uri: str, bucket: str, site: Site) -> OpenStore:
    default = _first(site.environment, "GOOGLE_BASE_URL") or "https://storage.googleapis.com"
    endpoint = _endpoint(uri, default, site, "GOOGLE_ALLOW_HTTP")
    _check_same(site, ("GOOGLE_BASE_URL",), endpoint, "GOOGLE_BASE_URL")
    rights = _google_rights(site)
    store = GCSStore(
        bucket,
        # Named always: a service account's key may name a server too.
        base_url=endpoint,
        skip_signature=rights.anonymous,
        client_options=_client(site, endpoint),
        retry_config=_RETRY,
        **rights.options,
    )
    return OpenStore(store, redacted(endpoint))


def _google_rights(site: Site) -> _Rights:
    key = _secret(
        site, "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"
    )
    if key:
        return _Rights({"service_account_key": key})
    token = site.credential("token")
    if token:
        return _Rights(_provider({"token": token, "expires_at": None}))
    return _Rights(
        environment=_has(
            site.environment,
            ("GOOGLE_APPLICATION_CREDENTIALS",),
            ("GOOGLE_SERVICE_ACCOUNT_KEY",),
            ("GOOGLE_SERVICE_ACCOUNT",),
            ("GCE_METADATA_HOST",),
        )
    )


def _azure(uri: str, container: str, site: Site) -> OpenStore:
    name = "AZURE_STORAGE_ACCOUNT_NAME"
    account = _first(site.environment, name) or _secret(site, name, "username")
    if account is None:
        raise ConfigError(
            f"az://{container} belongs to no storage account that is known.",
            f"Name it as {name} in the credentials Secret, or in the operator's fetch.env.",
        )
    if not _ACCOUNT.fullmatch(account):
        raise ConfigError(f"{name} is {account[:80]!r}, which can't be a storage account.")
    _check_same(site, (name,), account, name)
    names = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    default = _first(site.environment, *names) or f"https://{account}.blob.core.windows.net"
    endpoint = _endpoint(uri, default, site, "AZURE_ALLOW_HTTP")
    _check_same(site, names, endpoint, "AZURE_STORAGE_ENDPOINT")
    rights = _azure_rights(site)
    store = AzureStore(
        container,
        account_name=account,
        endpoint=endpoint,
        skip_signature=rights.anonymous,
        client_options=_client(site, endpoint),
        retry_config=_RETRY,
        **rights.options,
    )
    return OpenStore(store, redacted(endpoint))


def _azure_rights(site: Site) -> _Rights:
    given = {
        "access_key": _secret(site, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "password"),
        "sas_token": _secret(site, "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        "token": _secret(site, "AZURE_STORAGE_TOKEN", "token"),
    }
    for kind, value in given.items():
        if value:
            return _Rights(_provider({kind: value, "expires_at": None}))
    principal = {
        option: _secret(site, f"AZURE_{option.upper()}", f"AZURE_STORAGE_{option.upper()}")
        for option in ("client_id", "client_secret", "tenant_id")
    }
    if all(principal.values()):
        site.route.check("https://login.microsoftonline.com")
        return _Rights({**principal, "credential_type": "client_secret"})
    return _Rights(
        environment=_has(
            site.environment,
            ("AZURE_STORAGE_ACCOUNT_KEY",),
            ("AZURE_STORAGE_SAS_TOKEN",),
            ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"),
            ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"),
            ("IDENTITY_ENDPOINT",),
        )
    )


def _endpoint(uri: str, default: str, site: Site, allow_http: str) -> str:
    """Return the server that stands for a bucket on this site, where the site allows it."""
    route = site.route
    endpoint = route(route.endpoint(uri, default) + "/").rstrip("/")
    try:
        trusted = (
            frozenset({origin(endpoint).host}) if _is_true(site.environment, allow_http) else frozenset()
        )
        check_encrypted(endpoint, trusted)
    except SourceUntrusted as error:
        raise SourceUntrusted(
            error.message, f"Use https://, or write {allow_http}: 'true' into the operator's fetch.env."
        ) from None
    route.check(endpoint)
    check_public(origin(endpoint).host)
    return endpoint


def _check_same(site: Site, names: tuple[str, ...], used: str, setting: str) -> None:
    named = _secret(site, *names)
    if named is not None and named.rstrip("/") != used:
        raise SourceUntrusted(
            f"The credentials Secret names {redacted(named)[:200]!r} where this site has {redacted(used)!r}.",
            f"Leave it out of the Secret; have it set as {setting} in the operator's fetch.env, or a mirror in"
            " fetch.mirrors.",
        )


def _client(site: Site, endpoint: str) -> "ClientConfig":
    """Return how the client connects. Proxies and the system's CAs it finds by itself, as every program here does."""
    options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=_ANSWER_SECONDS),
        "timeout": timedelta(hours=_REQUEST_HOURS),
        "user_agent": "slm-runtime",
    }
    bundles = site.ca_bundles()
    if bundles:
        site.tls()
        options["root_certificate"] = b"\n".join(bundle.read_bytes() for bundle in bundles)
    return options


_RETRY: Final["RetryConfig"] = {"max_retries": 0}
"""Who fetches has its own patience, and counts what has come."""


def _provider(credential: Mapping[str, Any]) -> dict[str, Callable[[], Mapping[str, Any]]]:
    """Give the client these rights and none of its environment, which it would mix with them."""
    return {"credential_provider": lambda: credential}


def _secret(site: Site, *names: str) -> str | None:
    return next((value for name in names if (value := site.credential(name))), None)


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)


def _has(environment: Mapping[str, str], *groups: tuple[str, ...]) -> bool:
    return any(all(environment.get(name) for name in group) for group in groups)


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in _TRUE


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0].strip(" .")[:200]


_STORES: Final[Mapping[str, Callable[[str, str, Site], OpenStore]]] = {"s3": _s3, "gs": _google, "az": _azure}
