"""`spec.autoscaling`: how many replicas there shall be, by what waits and runs."""

from typing import Annotated

from pydantic import ConfigDict, Field

from slm_operator.crd.base import ApiModel, pattern, rule, rules


class ScalingTarget(ApiModel):
    queue: Annotated[int, Field(ge=1, le=1000)] = 1
    """Requests that may wait, for each replica; more of them ask for another."""
    in_flight: Annotated[int, Field(ge=1, le=256)] | None = None
    """Sequences that are decoded together, for each replica; more of them ask for another. Absent: four fifths of
    `runtime.parallel`."""


class Waker(ApiModel):
    type: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            json_schema_extra=pattern(
                "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                "write the type of a trigger as KEDA names it, such as external-push or prometheus",
            ),
        ),
    ]
    """Type of a KEDA trigger that knows of requests while no pod runs: `external-push` of KEDA's HTTP add-on, `prometheus`
    with the queue of an endpoint picker's flow control."""
    metadata: Annotated[
        dict[str, Annotated[str, Field(max_length=1024)]], Field(default_factory=dict, max_length=16)
    ]
    """The trigger's settings, as KEDA's documentation has them for its type."""


class Autoscaling(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self.min <= self.max", "write a min that is no more than max"),
            rule(
                "self.min > 0 || has(self.waker)",
                "with no pod left nobody would hear a request: name in waker who holds requests meanwhile, or write min: 1 "
                "and runtime.keepAlive, by which a pod without requests gives the model's memory back",
            ),
        )
    )

    min: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas that are there without any load; 0 only with a `waker`."""
    max: Annotated[int, Field(ge=1, le=1000)]
    """Replicas that are there at most."""
    target: ScalingTarget = ScalingTarget()
    """What one replica shall have to do; whichever asks for more replicas counts."""
    waker: Waker | None = None
    """Who wakes it from no replica at all; for `min: 0`."""
