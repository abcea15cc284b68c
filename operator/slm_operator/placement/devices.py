"""How many devices of its class a pod asks for: placement counts with what the pod template says."""

from math import ceil

from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.settings import HardwareClass


def devices_wanted(resource: SLMDeployment, hardware_class: HardwareClass) -> int:
    """The class's own count, or more where `spec.resources` says so; 0 where the class has no resource."""
    offered, given = hardware_class.resource, resource.spec.resources
    if offered is None:
        return 0
    asked = () if given is None else (given.limits.get(offered.name), given.requests.get(offered.name))
    return max(offered.count, *(ceil(parse_quantity(each)) for each in asked if each is not None), 0)
