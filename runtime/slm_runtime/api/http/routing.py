"""Paths to handlers, exactly: no redirects, no normalising, so that a path means one thing everywhere."""

from typing import Final

from slm_runtime.api.http.exchange import Handler
from slm_runtime.api.http.problems import MethodNotAllowed, NotFound

_WILDCARD: Final = "{rest}"


class Router:
    """Routes are exact paths, or a prefix followed by `{rest}`: what follows is one name, slashes and all."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._prefixes: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        table, key = (
            (self._prefixes, path.removesuffix(_WILDCARD))
            if path.endswith(_WILDCARD)
            else (self._exact, path)
        )
        table.setdefault(key, {})[method] = handler

    def routes(self) -> list[tuple[str, str]]:
        """All (method, path), for the OpenAPI document and the tests."""
        tables = [(self._exact, ""), (self._prefixes, _WILDCARD)]
        return [(method, path + end) for table, end in tables for path, by in table.items() for method in by]

    def find(self, method: str, path: str) -> tuple[str, Handler]:
        """Name the route of a request, and who handles it. HEAD is answered where GET is.

        Raises
        ------
        NotFound, MethodNotAllowed
        """
        name, by_method = self._lookup(path)
        handler = by_method.get(method) or (by_method.get("GET") if method == "HEAD" else None)
        if handler is None:
            raise MethodNotAllowed(method, path, tuple(sorted(by_method)))
        return name, handler

    def methods(self, path: str) -> tuple[str, tuple[str, ...]]:
        """Name the route of a path, and the methods that it takes.

        Raises
        ------
        NotFound
        """
        name, by_method = self._lookup(path)
        return name, tuple(sorted({*by_method, "OPTIONS", *(("HEAD",) if "GET" in by_method else ())}))

    def _lookup(self, path: str) -> tuple[str, dict[str, Handler]]:
        if path in self._exact:
            return path, self._exact[path]
        for prefix, by_method in self._prefixes.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return prefix + _WILDCARD, by_method
        raise NotFound(
            f"There is nothing at {path[:200]!r}. OpenAI clients want the base URL http://HOST:PORT/v1; "
            "GET /v1/models lists what is served."
        )
