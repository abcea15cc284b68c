"""Group, labels, annotations and the names of children: everything by which objects find each other."""

import hashlib
from collections.abc import Mapping
from typing import Final

GROUP: Final = "slm-operator.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "SLMDeployment"
PLURAL: Final = "slmdeployments"
SINGULAR: Final = "slmdeployment"
SHORT_NAMES: Final = ("slm", "slmd")

NAME_LIMIT: Final = 48
"""Of metadata.name: the longest child name adds fifteen characters, and a label holds 63."""

FIELD_MANAGER: Final = "slm-operator"
"""Owner of every field that the operator sets; another name would orphan them."""

MANAGED_BY: Final = "slm-operator"
NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
COPIES: Final = "copies"
"""The component of pods that keep a model on their node for others."""
HARDWARE_LABEL: Final = f"{GROUP}/hardware"
"""On pods only: the class that they were made for. Never in a selector."""
MODEL_LABEL: Final = f"{GROUP}/model"
"""On the pods of inspect and pre-pull Jobs only: the key of the model that they read."""

REVISION_LABEL: Final = f"{GROUP}/revision"
"""On serving pods only: the revision that they were made from. Never in a selector."""

INTENT_ANNOTATION: Final = f"{GROUP}/intent"
"""Hash of the whole intent that was last applied to this object."""
ROLLOUT_ANNOTATION: Final = f"{GROUP}/rollout"
"""On the Deployment: the revision it is made from, since when, what to go back to, and what was tried; as JSON."""

API_KEY_FILE: Final = "api-key"
"""The entry of a generated key Secret that people read."""
KEY_OWNER_PREFIX: Final = "owner-"
"""A generated key Secret has an empty entry of this and the SLMDeployment's uid: nobody could have made one before that uid
was given, and kubelet mounts none that lacks the entry."""
RUNTIME_NAME: Final = "slm-runtime"


def labels(instance: str, component: str = "runtime") -> dict[str, str]:
    """What every child carries."""
    return {
        NAME_LABEL: RUNTIME_NAME,
        INSTANCE_LABEL: instance,
        MANAGED_BY_LABEL: MANAGED_BY,
        PART_OF_LABEL: MANAGED_BY,
        COMPONENT_LABEL: component,
    }


def selector(instance: str) -> dict[str, str]:
    """The serving pods of one SLMDeployment. Immutable in a Deployment, so the model has no part in it."""
    return {NAME_LABEL: RUNTIME_NAME, INSTANCE_LABEL: instance, COMPONENT_LABEL: "runtime"}


def selector_text(match: Mapping[str, str]) -> str:
    """`a=b,c=d`, as the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in sorted(match.items()))


def key_secret_name(instance: str) -> str:
    return f"{instance}-api-key"


def key_owner_entry(uid: str) -> str:
    return f"{KEY_OWNER_PREFIX}{uid}"


def ca_bundle_name(instance: str) -> str:
    return f"{instance}-ca"


def claim_name(instance: str) -> str:
    return f"{instance}-models"


def copies_name(instance: str) -> str:
    return f"{instance}-copies"


def revision_name(instance: str, digest: str) -> str:
    return f"{instance}-{digest}"


def job_name(instance: str, purpose: str, digest: str) -> str:
    """A Job's template is immutable, so another template is another Job: six hex digits tell them apart."""
    return f"{instance}-{purpose}-{hashlib.sha256(digest.encode()).hexdigest()[:6]}"
