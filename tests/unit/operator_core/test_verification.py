"""`spec.model.verification`: who is trusted reaches what fetches and nothing else, and what was verified is told."""

import json
from typing import Any

import pytest

from slm_contract import places
from slm_contract.config import RuntimeConfig, SignerKind, VerificationConfig
from slm_contract.report import Failure, FailureReason, FetchReport
from tests.unit.operator_core.world import GIVEN, SMOLLM2, SOURCE, World, spec

ENTRY = {"name": "signers", "key": "cosign.pub"}
ITEMS = [{"key": "cosign.pub", "path": "signers.pem"}]
SIGNED_BY = "key sha256:" + "a" * 64


def model(**verification: Any) -> dict[str, Any]:
    return {"source": SOURCE, "verification": verification}


def verified(**changes: Any) -> World:
    return World(spec(model=model(publicKey={"configMapRef": ENTRY}), **changes))


@pytest.mark.parametrize(
    ("reference", "source"),
    [
        ({"configMapRef": ENTRY}, {"configMap": {"name": "signers", "items": ITEMS, "defaultMode": 0o440}}),
        ({"secretRef": ENTRY}, {"secret": {"secretName": "signers", "items": ITEMS, "defaultMode": 0o440}}),
    ],
    ids=["ConfigMap", "Secret"],
)
@pytest.mark.parametrize("who", ["publicKey", "certificate"])
def test_only_what_fetches_sees_the_one_entry(
    who: str, reference: dict[str, Any], source: dict[str, Any]
) -> None:
    world = World(spec(model=model(**{who: reference}), resources=GIVEN))
    world.settle()
    pod = world.deployment["spec"]["template"]["spec"]
    assert {"name": "signers", **source} in pod["volumes"]
    (fetch,), (serve,) = pod["initContainers"], pod["containers"]
    mount = {"name": "signers", "mountPath": places.SIGNERS.rpartition("/")[0], "readOnly": True}
    assert mount in fetch["volumeMounts"]
    assert "signers" not in {each["name"] for each in serve["volumeMounts"]}
    (config,) = (each["value"] for each in fetch["env"] if each["name"] == places.CONFIG_ENV)
    kind = SignerKind.PUBLIC_KEY if who == "publicKey" else SignerKind.CERTIFICATE
    assert RuntimeConfig.model_validate_json(config).model.verification == VerificationConfig(signers=kind)


@pytest.mark.parametrize(
    ("purpose", "cache"), [("inspect", {}), ("pull", {"mode": "PVC", "size": "5Gi"})], ids=["inspect", "pull"]
)
def test_jobs_verify_too(purpose: str, cache: dict[str, Any]) -> None:
    world = verified(cache=cache)
    world.settle()
    if purpose == "pull":
        world.finish_job("inspect")
        world.settle()
    pod = world.job(purpose)["spec"]["template"]["spec"]
    assert "signers" in {each["name"] for each in pod["volumes"]}
    assert "signers" in {each["name"] for each in pod["containers"][0]["volumeMounts"]}


def test_a_spec_that_begins_to_ask_has_its_model_asked_for_anew() -> None:
    world = World(spec())
    world.settle()
    world.finish_job("inspect")
    world.settle()
    world.run_pods()
    world.settle()
    before = json.dumps(world.deployment["spec"]["template"])
    world.pods = [each for each in world.pods if each["status"]["phase"] == "Running"]
    world.edit(model=model(publicKey={"configMapRef": ENTRY}))
    world.settle()
    assert json.dumps(world.deployment["spec"]["template"]) == before, "until it is known to be signed"
    world.finish_job("inspect")
    world.settle()
    assert "signers" in json.dumps(world.deployment["spec"]["template"])


def test_the_status_says_who_signed_what_serves() -> None:
    world = verified(resources=GIVEN)
    world.settle()
    world.run_pods(facts=SMOLLM2.model_copy(update={"signed_by": SIGNED_BY}))
    world.settle()
    assert world.status["model"]["signedBy"] == SIGNED_BY
    world.pods = []
    world.settle()
    assert world.status["model"]["signedBy"] == SIGNED_BY, "it isn't forgotten with a pod"


def test_who_doesn_t_ask_is_told_nothing() -> None:
    """The volume's model may have been verified for another SLMDeployment, by whom that one trusts."""
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods(facts=SMOLLM2.model_copy(update={"signed_by": SIGNED_BY}))
    world.settle()
    assert "signedBy" not in world.status["model"]


def test_a_refused_signature_is_the_model_s_fault() -> None:
    world = verified(resources=GIVEN)
    world.settle()
    world.run_pods(ready=False)
    failure = Failure(
        reason=FailureReason.SIGNATURE_INVALID, message="by a stranger", remedy="sign it", permanent=True
    )
    words = FetchReport(command="fetch", failure=failure).to_json()
    world.fail("fetch", words, exit_code=places.ExitCode.FETCH_PERMANENT)
    world.settle()
    told = world.condition("ModelReady")
    assert told is not None
    assert (told["status"], told["reason"]) == ("False", FailureReason.SIGNATURE_INVALID)
    assert world.status["lastFailure"]["remedy"] == failure.remedy
