"""`spec.endpoint`: the Service, and who reaches it."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from slm_operator.crd.base import ApiModel, pattern, rule, rules
from slm_operator.crd.gateway import Gateway
from slm_operator.crd.podtemplate import Annotations

Origin = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        json_schema_extra=pattern(
            r"^(\*|https?://[^/\s,]+)$",
            "write an origin such as https://chat.example.com: scheme, host and port, no path; or * for every page",
        ),
    ),
]


ImageOrigin = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        json_schema_extra=pattern(
            r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$",
            "write an origin such as https://images.example.com: scheme, host and port, no path",
        ),
    ),
]


class Cors(ApiModel):
    allowed_origins: Annotated[
        tuple[Origin, ...],
        Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ]
    """Origins whose pages may use the API from a browser; `*` is every page."""


_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
SourceRange = Annotated[
    str,
    Field(
        max_length=49,
        json_schema_extra=pattern(
            rf"^({_OCTET}[.]){{3}}{_OCTET}/(3[0-2]|[12]?[0-9])$|"
            "^[0-9A-Fa-f]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$",
            "write a range of addresses such as 10.0.0.0/8 or 2001:db8::/32",
        ),
    ),
]
"""Kubernetes' own `isCIDR` is CEL from 1.31 on."""


class Endpoint(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.type == 'LoadBalancer' || !(has(self.loadBalancerClass) || has(self.loadBalancerSourceRanges))",
                "loadBalancerClass and loadBalancerSourceRanges are for type LoadBalancer: write it or leave them out",
            ),
            rule(
                "self.type != 'LoadBalancer' || oldSelf.type != 'LoadBalancer' || "
                "(has(self.loadBalancerClass) ? self.loadBalancerClass : '') == "
                "(has(oldSelf.loadBalancerClass) ? oldSelf.loadBalancerClass : '')",
                "a load balancer can't change its class: write type ClusterIP first, then LoadBalancer with the other class",
            ),
        )
    )

    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of the Service; OpenAI's and Ollama's routes are both on it."""
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service."""
    annotations: Annotations
    """Annotations of the Service, as cloud providers and DNS controllers read them."""
    load_balancer_class: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=253,
                json_schema_extra=pattern(
                    "^[A-Za-z0-9][-A-Za-z0-9_./]*$",
                    "write the name of a class of load balancers, such as example.com/internal",
                ),
            ),
        ]
        | None
    ) = None
    """Which controller makes the load balancer; absent: the cluster's default."""
    load_balancer_source_ranges: Annotated[
        tuple[SourceRange, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Ranges of addresses that may reach the load balancer; absent: all."""
    gateway: Gateway | None = None
    """Has gateways of the cluster (Gateway API) route to the model; absent: none."""
    idle_timeout: (
        Annotated[
            str,
            Field(
                max_length=32,
                json_schema_extra=rules(
                    rule(
                        "self.matches('^([0-9]+(h|m|s))+$') && !self.matches('^(0+(h|m|s))+$')",
                        "write a duration above zero such as 90s or 1h5m, or leave idleTimeout out: 620 seconds",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """How long a connection may be idle before the server closes it: longer than proxies before it keep theirs. Absent:
    620 seconds."""
    stored_responses: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many responses of `/v1/responses` each pod keeps in memory, for an hour and 64 MiB at most, so that clients can go
    on with them by `previous_response_id`. Absent: none."""
    cors: Cors | None = None
    """Which web pages may use the API from a browser; absent: none."""
    unknown_fields: Literal["Ignore", "Refuse"] = "Ignore"
    """What becomes of fields of OpenAI requests that the API doesn't know: ignored, and named in the answer's header
    `x-slm-ignored-fields`, or refused with 400."""
    image_origins: Annotated[
        tuple[ImageOrigin, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Origins from which a vision model's pods fetch the images that clients name by URL, redirects included. Absent: images
    come as data URIs alone, and nothing is fetched."""
    trusted_proxies: Annotated[
        tuple[SourceRange, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Ranges of addresses of proxies, such as an ingress, whose word is taken for whom they ask for: the API is fair between
    clients, and all behind a proxy are one else. Absent: nobody's."""
