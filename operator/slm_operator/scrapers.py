"""Who scrapes: the Prometheus objects of the cluster, as far as they say which ServiceMonitors they take. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Selector = Mapping[str, Any] | None
"""A label selector as Kubernetes writes it; None selects nothing, `{}` everything."""


@dataclass(frozen=True)
class Scraper:
    """One Prometheus, or one agent."""

    name: str
    namespace: str
    monitors: Selector
    """By the ServiceMonitors' labels."""
    namespaces: Selector
    """By the labels of their namespaces; None: its own namespace alone."""

    def objection(
        self, labels: Mapping[str, str], namespace: str, of_namespace: Mapping[str, str]
    ) -> str | None:
        """Why it takes no ServiceMonitor of these labels in this namespace; None where it does."""
        if self.namespaces is None and namespace != self.namespace:
            return f"looks into no namespace but {self.namespace}"
        if self.namespaces is not None and not selects(self.namespaces, of_namespace):
            return f"looks into namespaces with {_words(self.namespaces)}"
        if self.monitors is None:
            return "takes no ServiceMonitor at all"
        return None if selects(self.monitors, labels) else f"takes those with {_words(self.monitors)}"


@dataclass(frozen=True)
class Scrapers:
    """All of a cluster."""

    found: tuple[Scraper, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of each namespace."""

    def objections(self, labels: Mapping[str, str], namespace: str) -> tuple[str, ...] | None:
        """Why nobody takes a ServiceMonitor, a sentence for each who might; None where somebody does."""
        found = []
        for each in self.found:
            words = each.objection(labels, namespace, self.namespaces.get(namespace, {}))
            if words is None:
                return None
            found.append(f"{each.namespace}/{each.name} {words}")
        return tuple(found)


def scraper_of(document: Mapping[str, Any]) -> Scraper:
    """Of a Prometheus or PrometheusAgent as the API server has it."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    return Scraper(
        name=metadata["name"],
        namespace=metadata["namespace"],
        monitors=spec.get("serviceMonitorSelector"),
        namespaces=spec.get("serviceMonitorNamespaceSelector"),
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes what has these labels, as the API server reads it."""
    return all(
        labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    ) and all(_meets(each, labels) for each in selector.get("matchExpressions") or ())


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _words(selector: Mapping[str, Any]) -> str:
    return ", ".join(_requirements(selector))


def _requirements(selector: Mapping[str, Any]) -> Iterator[str]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield f"{key}={value}"
    for each in selector.get("matchExpressions") or ():
        values = each.get("values")
        yield f"{each['key']} {each['operator']}" + (f" ({', '.join(values)})" if values else "")
