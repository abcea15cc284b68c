"""A manifest and a site → a plan: what is read, rehearsed and said by `kubectl slm plan`."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from kubectl_slm import read
from kubectl_slm.cluster import Cluster
from kubectl_slm.documents import parse_yaml, read_text, read_yaml
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.explain import Explanation, explain
from kubectl_slm.planning import site
from kubectl_slm.planning.capacity import Demand, capacity
from kubectl_slm.planning.fields import unknown_fields
from kubectl_slm.planning.hosts import hosts_asked
from kubectl_slm.planning.rehearsal import Rehearsal, rehearse
from slm_operator.crd.names import API_VERSION, KIND
from slm_operator.crd.resource import SpecError, parse_resource
from slm_operator.crd.spec import Spec
from slm_operator.model.known import runtime_config
from slm_operator.nodes import Nodes
from slm_operator.settings import HardwareClass, Settings

_ONE_CLASS: Final = (HardwareClass(name="cpu", family="cpu"),)


@dataclass
class Site:
    """What decisions depend on beside the manifest."""

    settings: Settings
    nodes: Nodes | None
    facts: site.Facts
    deployments: list[read.Document] = field(default_factory=list)
    """Those that there are already: what was measured of the same model is said."""
    notes: list[str] = field(default_factory=list)


def plans(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One for each SLMDeployment of the file, as it is told to programs.

    Raises
    ------
    CommandError
    """
    manifests = list(_manifests(args.filename))
    suffices = _capacity(args)
    at = _site(args)
    return [{**_plan(each, at), **suffices} for each in manifests]


def _capacity(args: argparse.Namespace) -> dict[str, Any]:
    """What suffices for as many people as were asked about; nothing where none were."""
    if args.people is None:
        return {}
    if args.bench is None:
        raise CommandError(
            "how many people a replica serves isn't known without figures",
            "measure it: `kubectl slm bench NAME -o json > FILE`, then write --bench FILE",
            Exit.USAGE,
        )
    wanted = Demand(args.people, args.prompt_tokens, args.answer_tokens, args.first_token)
    try:
        found = capacity(read_yaml(args.bench), wanted)
    except (KeyError, IndexError, TypeError):
        raise CommandError(
            f"{args.bench} holds no figures", "give what `kubectl slm bench NAME -o json` prints", Exit.USAGE
        ) from None
    return {
        "capacity": {
            "replicas": found.replicas,
            "streams": found.streams,
            "firstTokenSeconds": round(found.first_token, 2),
            "answerSeconds": round(found.answer, 1),
            "assumptions": list(found.assumptions),
        }
    }


def _manifests(path: str) -> Iterator[dict[str, Any]]:
    text = read_text(path)
    if text.lstrip().startswith("{"):
        found = [parse_yaml(text, path)]
    else:
        try:
            found = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
        except yaml.YAMLError as error:
            told = " ".join(str(error).split())
            raise CommandError(f"{path}: {told}", "correct it: it isn't YAML", Exit.USAGE) from None
    ours = [each for each in _unpacked(found) if each.get("kind") == KIND]
    if not ours:
        raise CommandError(f"{path}: no {KIND} is in it", "give a manifest of one", Exit.USAGE)
    for each in ours:
        if each.get("apiVersion") != API_VERSION:
            raise CommandError(
                f"{path}: apiVersion {each.get('apiVersion')} isn't known", f"write {API_VERSION}", Exit.USAGE
            )
        if not isinstance((each.get("metadata") or {}).get("name"), str):
            raise CommandError(f"{path}: it has no metadata.name", "give it one", Exit.USAGE)
    yield from ours


def _unpacked(documents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in documents:
        if each.get("kind") == "List":
            yield from each.get("items") or ()
        else:
            yield each


def _site(args: argparse.Namespace) -> Site:
    """From files where they are given, the rest from the cluster where it may be asked."""
    cluster = None if args.offline or args.nodes or args.values else Cluster.of(args)
    notes: list[str] = []
    facts = site.Facts()
    if args.values:
        merged: dict[str, Any] = {}
        for path in args.values:
            merged = _merged(merged, read_yaml(path))
        settings = site.settings_of(merged, " + ".join(args.values))
    elif cluster is not None:
        settings = site.settings_in(cluster)
    else:
        settings = Settings(runtime_image=site.RUNTIME_IMAGE, classes=_ONE_CLASS)
        notes.append("one class of hardware was assumed, any CPU: --values FILE names those of the site")
    nodes: Nodes | None = None
    if args.nodes:
        nodes = site.nodes_of(_listed(args.nodes))
    elif cluster is not None:
        nodes = _nodes(cluster, notes)
    else:
        notes.append("no nodes were looked at: --nodes FILE gives them, else the scheduler alone decides")
    deployments: list[read.Document] = []
    if cluster is not None:
        facts.of_revisions(site.revisions_in(cluster))
        deployments = cluster.deployments()
    for path in args.facts:
        facts.of_file(path)
    return Site(settings, nodes, facts, deployments, notes)


def _listed(path: str) -> list[dict[str, Any]]:
    found = read_yaml(path).get("items")
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and "metadata" in each for each in found
    ):
        raise CommandError(
            f"{path} lists no nodes", "give what `kubectl get nodes -o json` prints", Exit.USAGE
        )
    return found


def _nodes(cluster: Cluster, notes: list[str]) -> Nodes | None:
    try:
        return site.nodes_of(cluster.get("nodes")["items"])
    except CommandError as error:
        if error.code is not Exit.FORBIDDEN:
            raise
    notes.append("you may not see the cluster's nodes: have somebody give you --nodes FILE")
    return None


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm lays values over each other."""
    both = {
        name: _merged(one[name], value)
        for name, value in other.items()
        if isinstance(value, Mapping) and isinstance(one.get(name), Mapping)
    }
    return {**one, **other, **both}


def _plan(manifest: dict[str, Any], at: Site) -> dict[str, Any]:
    done = rehearse(
        manifest, nodes=at.nodes, settings=at.settings, now=datetime.now(UTC), known=at.facts.known
    )
    told = {**manifest, "status": done.decision.status}
    spec = _spec(manifest)
    verdict = explain(told)
    amiss = verdict.state == "broken"
    fits = False if amiss else None if done.unread else done.deployment is not None
    name = read.name_of(told)
    there = any(read.name_of(each) == name for each in at.deployments)
    notes = [*at.notes, *unknown_fields(manifest)]
    notes += [f"there is a {name} already: this says what a new one would become"] if there else []
    return {
        "name": name,
        "fits": fits,
        "class": read.part(told, "placement", "selected"),
        "because": _because(told),
        "rejected": read.part(told, "placement", "rejected") or [],
        "model": read.part(told, "model") or {},
        "memory": read.part(told, "memory") or {},
        "replicas": None if spec is None else spec.replicas,
        "image": _image(done),
        "objects": sorted(f"{ref.kind}/{ref.name}" for ref in done.children),
        "hosts": [] if spec is None else _hosts(spec, done, at.settings),
        "measured": list(_measured(read.text(told, "model", "source"), at.deployments)),
        "unread": [each.source for each in done.unread],
        "faults": _faults(verdict) if amiss else [],
        "notes": notes,
    }


def _spec(manifest: Mapping[str, Any]) -> Spec | None:
    """None where it can't be read: what was decided says so."""
    try:
        return parse_resource(manifest).spec
    except SpecError:
        return None


def _because(told: read.Document) -> str:
    """Why this class; why not the others is said of each."""
    placed = read.conditions(told).get("Placed")
    words = read.text(told, "placement", "reason") or ("" if placed is None else placed.message)
    for each in read.part(told, "placement", "rejected") or ():
        words = words.replace(f"; {each['hardware']}: {each['reason']}", "")
    return words


def _faults(verdict: Explanation) -> list[dict[str, str]]:
    return [{"reason": verdict.reason, "message": verdict.sentence, "remedy": verdict.remedy}]


def _image(done: Rehearsal) -> str | None:
    if done.deployment is None:
        return None
    (serve,) = done.deployment["spec"]["template"]["spec"]["containers"]
    return str(serve["image"])


def _hosts(spec: Spec, done: Rehearsal, settings: Settings) -> list[str]:
    """Of everything that the Jobs and the pods would be told to fetch."""
    environment = {each.name: each.value for each in settings.fetch.env}
    mirrors = [(each.source, each.mirror) for each in spec.model.mirrors or ()]
    mirrors += [(each.source, each.mirror) for each in settings.fetch.mirrors]
    found: dict[str, None] = {}
    for child in done.children.values():
        config = runtime_config(child.get("spec", {}).get("template", {}).get("spec", {}))
        if config is None:
            continue
        artifacts = (
            config.model,
            *(config.adapters or ()),
            *([config.projector] if config.projector else []),
        )
        for each in artifacts:
            found |= dict.fromkeys(hosts_asked(each.source, environment, mirrors))
    return list(found)


def _measured(source: str, deployments: Iterable[read.Document]) -> Iterator[str]:
    """What the same model has shown elsewhere in this cluster."""
    for each in deployments:
        speed = read.part(each, "performance", "tokensPerSecond")
        if source and read.text(each, "model", "source") == source and speed:
            device = read.text(each, "acceleration", "device") or read.text(each, "placement", "selected")
            yield f"{speed:.0f} tokens/s of one stream by {read.name_of(each)}, on {device}"
