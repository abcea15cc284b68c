"""What the operator asks of a cluster: the seam between the control loops and the network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from slm_operator.cluster.resources import Resource
from slm_operator.snapshot import Document

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Listing(Generic[Kept]):
    """All objects of a resource at one revision."""

    items: list[Kept]
    resource_version: str


class Cluster(Protocol):
    """Every method raises :class:`~slm_operator.cluster.errors.ClusterError`, and nothing else, on a refusal.

    What comes back is the object as the API server has it after the call.
    """

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        keep: Callable[[Document], Kept],
        *,
        field_selector: str = "",
        cached: bool = False,
    ) -> Listing[Kept]:
        """All objects (of one namespace or of all), read in pages, each reduced by ``keep`` as it comes.

        ``cached`` asks for what the API server has in memory: cheap for it, in one page as a rule, and maybe
        older than what was seen before.
        """
        ...

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Document: ...

    async def create(self, document: Document) -> Document:
        """By POST; :class:`ExistsError` where the name is taken."""
        ...

    async def replace(self, document: Document) -> Document:
        """By PUT, only over the ``resourceVersion`` it carries; else :class:`ConflictError`."""
        ...

    async def apply(self, document: Document, *, force: bool = True) -> Document:
        """By server-side apply, the full intent.

        ``metadata.uid`` and ``metadata.resourceVersion`` are preconditions: :class:`ConflictError` where the object
        is another one, has moved on, or is gone.
        """
        ...

    async def consolidate(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> Document:
        """Make one entry of all fields that are ours in ``metadata.managedFields``, that of an apply.

        What an apply leaves out stays for as long as the entry of our POST has it too. Only that very object in that
        very state, else :class:`ConflictError`; :class:`MissingError` where it is gone.
        """
        ...

    async def overwrite(self, document: Document) -> Document:
        """By merge patch over the ``resourceVersion`` it carries: its lists become what they say.

        Server-side apply can't take an element out of a list that somebody else put there.
        """
        ...

    async def apply_status(self, document: Document) -> Document:
        """By server-side apply of the status subresource.

        ``metadata.resourceVersion`` is the precondition (:class:`ConflictError`): a status is never written
        over an object that its writer hadn't seen, and what an earlier status had and this one hasn't goes.
        """
        ...

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> None:
        """Only that very object in that very state; its dependents follow."""
        ...

    async def serves(self, resource: Resource) -> bool:
        """Whether the cluster knows the kind."""
        ...
