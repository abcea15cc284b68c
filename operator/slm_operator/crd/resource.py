"""One SLMDeployment as the API server has it, parsed."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from slm_operator.crd.base import ApiModel
from slm_operator.crd.names import API_VERSION, KIND
from slm_operator.crd.spec import Spec
from slm_operator.crd.status import Status


class SpecError(ValueError):
    """A spec that can't be read: older than the rules that would have refused it."""


class Metadata(ApiModel):
    name: str
    """Name of the object."""
    namespace: str = "default"
    """Namespace of the object and all its children."""
    uid: str = ""
    """Tells it from an earlier object of the same name."""
    generation: int = 1
    """Counts the changes of the spec."""


class SLMDeployment(ApiModel):
    """A small language model, served on the best hardware that the cluster really has."""

    metadata: Metadata = Field(exclude=True)
    """Standard object metadata."""
    spec: Spec
    """What is wanted."""
    status: Status = Status()
    """What was decided and observed."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def model_name(self) -> str:
        """The name that clients ask for."""
        return self.spec.model.name or self.metadata.name

    @property
    def replicas(self) -> int:
        """Pods that shall exist."""
        return 0 if self.spec.suspend else self.spec.replicas

    @property
    def owner_reference(self) -> dict[str, Any]:
        """Children go with their owner, and don't hold it back."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def parse_resource(document: Mapping[str, Any]) -> SLMDeployment:
    """Read an SLMDeployment; a status of another version's making doesn't count.

    Raises
    ------
    SpecError
        With the place in the spec and what is wrong there.
    """
    try:
        metadata = Metadata.model_validate(document["metadata"])
        spec = Spec.model_validate(document.get("spec", {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"spec.{place}: {first['msg']}") from error
    return SLMDeployment(metadata=metadata, spec=spec, status=parse_status(document))


def parse_status(document: Mapping[str, Any]) -> Status:
    """The live status, empty where it can't be read: it is written anew."""
    try:
        return Status.model_validate(document.get("status") or {})
    except ValidationError:
        return Status()
