"""`spec.endpoint.gateway`: how the model is reached through a gateway of the cluster."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from slm_operator.crd.base import ApiModel, ObjectName, pattern, rule, rules

Hostname = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=pattern(
            r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            "write a host's name in lowercase letters, such as models.example.com or *.example.com",
        ),
    ),
]


class ParentReference(ApiModel):
    name: ObjectName
    """Name of the Gateway."""
    namespace: ObjectName | None = None
    """Its namespace; absent: the SLMDeployment's own."""
    section_name: ObjectName | None = None
    """Name of one of its listeners; absent: all that admit the route."""


class EndpointPicker(ApiModel):
    name: ObjectName
    """Service of the endpoint picker, in the SLMDeployment's namespace."""
    port: Annotated[int, Field(ge=1, le=65535)] = 9002
    """Its port."""
    failure_mode: Literal["FailOpen", "FailClose"] = "FailOpen"
    """What becomes of requests while it doesn't answer: `FailOpen` sends them to any pod, `FailClose` to none."""


class Gateway(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.backend == 'InferencePool') == has(self.endpointPickerRef)",
                "an InferencePool, and nothing else, has an endpoint picker: write both backend: InferencePool and "
                "endpointPickerRef, or neither",
            )
        )
    )

    parent_refs: Annotated[
        tuple[ParentReference, ...],
        Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """Gateways that shall route to the model."""
    hostnames: Annotated[
        tuple[Hostname, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Names that it is asked for by; absent: those of the Gateways' listeners."""
    backend: Literal["Service", "InferencePool"] = "Service"
    """What the route leads to: the Service, or a pool whose endpoint picker chooses a pod for each request."""
    endpoint_picker_ref: EndpointPicker | None = None
    """Who chooses, with backend `InferencePool`; its deployment is yours."""
