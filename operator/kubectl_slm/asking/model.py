"""A deployed model, asked over the API server's proxy: no port-forward, the key from its Secret."""

import base64
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from kubectl_slm import read
from kubectl_slm.asking.proxy import Proxy
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit
from slm_operator.crd.names import API_KEY_FILE, KEY_OWNER_PREFIX

KEY_HEADER: Final = "x-api-key"
"""Not `Authorization`, which the API server takes for its own and keeps."""


@dataclass
class Usage:
    """What an answer took, as its server counts it."""

    prompt_tokens: int = 0
    answer_tokens: int = 0
    finish: str = ""


class Broken(Exception):
    """The answer ended before its end."""


@dataclass(frozen=True)
class Model:
    proxy: Proxy
    name: str
    """That clients ask for."""
    base: str
    """Path of its Service at the API server."""
    key: str | None

    def ask(
        self, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any], usage: Usage
    ) -> Generator[str, None, None]:
        """Pieces of the answer as they come; `usage` is filled in on the way.

        Raises
        ------
        CommandError
            It is refused, or the connection is lost before anything came.
        Broken
            The connection was lost in the middle of the answer.
        """
        body = {
            "model": self.name,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }
        headers = {} if self.key is None else {KEY_HEADER: self.key}
        with self.proxy.post(f"{self.base}/v1/chat/completions", body, headers) as answer:
            ended = False
            try:
                for line in answer:
                    if not line.startswith(b"data: "):
                        continue
                    told = line.removeprefix(b"data: ").strip()
                    if told == b"[DONE]":
                        ended = True
                        break
                    yield from _pieces(json.loads(told), usage)
            except (HTTPException, OSError, ValueError) as error:
                raise Broken(str(error) or type(error).__name__) from error
            if not ended:
                raise Broken("the server closed the connection")


def _pieces(chunk: Mapping[str, Any], usage: Usage) -> Iterator[str]:
    if isinstance(chunk.get("error"), Mapping):
        raise Broken(str(chunk["error"].get("message", "the server gave up")))
    counted = chunk.get("usage") or {}
    usage.prompt_tokens = counted.get("prompt_tokens", usage.prompt_tokens)
    usage.answer_tokens = counted.get("completion_tokens", usage.answer_tokens)
    for choice in chunk.get("choices") or ():
        usage.finish = choice.get("finish_reason") or usage.finish
        piece = (choice.get("delta") or {}).get("content")
        if piece:
            yield str(piece)


def model_of(cluster: Cluster, proxy: Proxy, document: read.Document, key_file: str | None = None) -> Model:
    """The model of an SLMDeployment that serves.

    Raises
    ------
    CommandError
        Nobody would answer, or its key can't be had.
    """
    name, namespace = read.name_of(document), read.namespace_of(document)
    if not read.part(document, "readyReplicas"):
        raise CommandError(
            f"{name} doesn't serve: {read.reason(document)}",
            f"`kubectl slm why {name}` says why, and what to do",
        )
    return Model(
        proxy=proxy,
        name=read.model_name(document),
        base=f"/api/v1/namespaces/{namespace}/services/http:{name}:{read.port(document)}/proxy",
        key=_given(key_file) if key_file else key_of(cluster, document),
    )


def key_of(cluster: Cluster, document: read.Document) -> str | None:
    """A key of the Secret that the status names; None where none is asked for.

    Raises
    ------
    CommandError
    """
    secret = read.text(document, "keySecret")
    if not secret or (document["spec"].get("auth") or {}).get("mode") == "None":
        return None
    chosen = Cluster(cluster.context, read.namespace_of(document), cluster.kubeconfig)
    try:
        entries = chosen.get("secret", secret).get("data") or {}
    except CommandError as error:
        raise CommandError(
            f"the key of {read.name_of(document)} can't be read: {error.message}",
            f"ask for the right to get Secret {secret}, or give a key with --key-file FILE",
            error.code,
        ) from None
    keys = {name: base64.b64decode(value).decode().strip() for name, value in entries.items()}
    known = [keys.get(API_KEY_FILE, "")]
    known += [value for name, value in sorted(keys.items()) if not name.startswith(KEY_OWNER_PREFIX)]
    found = next(filter(None, known), None)
    if found is None:
        raise CommandError(f"Secret {secret} holds no key", "put one in; any name of an entry will do")
    return found


def _given(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", "name a file with a key", Exit.USAGE) from None
