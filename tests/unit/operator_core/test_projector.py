"""Projectors of vision models: looked at, pinned, fetched and counted as their model is."""

from types import MappingProxyType
from typing import Any

import pytest

from slm_contract import pictures
from slm_contract.config import Part, RuntimeConfig
from slm_contract.report import ModelFacts, ProjectorFacts
from slm_contract.source import SourcePin
from slm_operator.crd.quantities import parse_quantity
from tests.unit.operator_core.test_adapters import ADAPTER, config, moves_on
from tests.unit.operator_core.world import NO_MODEL, SMOLLM2, World, node, spec

MODEL, VISION = "hf://org/vl/m-Q4_K_M.gguf", "hf://org/vl-vision/mmproj-F16.gguf"
CLAIM = "pvc://models/vl/m.gguf"
PROJECTOR = ModelFacts(
    projector=ProjectorFacts(
        kind="idefics3",
        output_length=SMOLLM2.embedding_length,
        image_size=512,
        patch_size=16,
        compute_elements=5_505_024,
    ),
    file_name="mmproj-F16.gguf",
    size_bytes=199_000_000,
    architecture="clip",
    weights_bytes=198_000_000,
    **NO_MODEL,
    pin=SourcePin(revision="c" * 40, digest="2" * 64),
)
HEADER = SMOLLM2.model_copy(update={"pin": SourcePin(revision="c" * 40, digest="1" * 64)})


def finish(world: World, model: ModelFacts = HEADER, projector: ModelFacts = PROJECTOR) -> None:
    """Let every look at a header end: one source may have both."""
    world.settle()
    world.finish_inspections({MODEL: model, CLAIM: model}, projector)
    world.settle()


def deployed(asked: Any = MappingProxyType({"source": VISION}), **found: ModelFacts) -> World:
    world = World(spec(model={"source": MODEL, "projector": dict(asked)}))
    finish(world, **found)
    return world


def plain() -> World:
    world = World(spec(model={"source": MODEL}))
    finish(world)
    return world


def taken(world: World) -> RuntimeConfig:
    return config(world.deployment)


def test_one_whose_source_moved_is_told_and_serves_on() -> None:
    world = deployed()
    world.run_pods(facts=HEADER)
    before, projector = taken(world), taken(world).projector
    assert projector is not None
    moves_on(world, SourcePin(revision="decaf0", digest="9" * 64), projector.key)
    world.settle()
    assert f"{VISION} stands for decaf0 now" in (world.condition("SourceDrifted") or {})["message"]
    assert taken(world) == before


def test_it_is_looked_at_before_pods_are_made_and_pinned() -> None:
    world = World(spec(model={"source": MODEL, "projector": {"source": VISION}}))
    world.settle()
    assert world.kinds().count("Job") == 2
    assert "Deployment" not in world.kinds()
    finish(world)
    assert "Job" not in world.kinds()
    found = taken(world).projector
    assert found is not None
    assert (found.source, found.part, found.pin) == (VISION, Part.PROJECTOR, PROJECTOR.pin)


def test_the_model_s_own_source_is_looked_at_twice_and_each_has_a_folder() -> None:
    world = deployed({})
    found = taken(world)
    assert found.projector is not None
    assert (found.projector.source, found.projector.part) == (MODEL, Part.OWN_PROJECTOR)
    assert found.projector.key != found.model.key
    assert found.projector.folder != found.model.folder


def test_where_none_is_asked_for_nothing_is_another() -> None:
    world = plain()
    assert "projector" not in taken(world).to_json()
    assert "projector" not in world.status["model"]
    assert "projector" not in world.status["memory"]


def test_weights_and_a_picture_s_buffer_are_a_line_of_the_memory() -> None:
    told, without = deployed().status["memory"], plain().status["memory"]
    assert told["projector"] == 198_000_000 + 4 * 5_505_024 + pictures.ROOM
    assert "projector 346 MiB (weights 189 MiB, a picture 157 MiB)" in told["explanation"]
    assert told["weights"] == without["weights"]
    assert parse_quantity(told["request"]) - parse_quantity(without["request"]) >= told["projector"]
    parts = ("weights", "kvCache", "recurrentState", "compute", "outputs", "projector", "process", "headroom")
    assert sum(told[part] for part in parts) == parse_quantity(told["request"])


def test_status_names_it() -> None:
    assert deployed().status["model"]["projector"] == {
        "source": VISION,
        "resolved": "mmproj-F16.gguf",
        "kind": "idefics3",
        "sizeBytes": 199_000_000,
        "revision": "c" * 40,
        "digest": "2" * 64,
    }


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"projector": SMOLLM2}, "is a model and no projector"),
        ({"projector": ADAPTER}, "is an adapter and no projector"),
        ({"model": PROJECTOR}, "names mmproj-F16.gguf, a projector, and no model"),
        (
            {"model": HEADER.model_copy(update={"embedding_length": 2560})},
            "is for models with embeddings of 576, and the model's have 2560",
        ),
        ({"model": HEADER.model_copy(update={"encoder": True})}, "the model is an encoder"),
    ],
    ids=["a model", "an adapter", "in the model's place", "of another size", "an encoder"],
)
def test_what_doesn_t_go_together_is_told_and_no_pods_are_made(
    found: dict[str, ModelFacts], says: str
) -> None:
    world = deployed(**found)
    assert "Deployment" not in world.kinds()
    for condition in ("Ready", "ModelReady"):
        told = world.condition(condition)
        assert told is not None
        assert told["reason"] == "ProjectorMismatch"
        assert says in told["message"]


def test_one_that_doesn_t_tell_whom_it_is_for_is_left_to_the_engine() -> None:
    assert PROJECTOR.projector is not None
    silent = PROJECTOR.projector.model_copy(update={"kind": "newer", "output_length": None})
    assert taken(deployed(projector=PROJECTOR.model_copy(update={"projector": silent}))).projector is not None


def test_it_is_pulled_into_a_claim_with_its_model_and_stays_there() -> None:
    world = World(
        spec(
            model={"source": MODEL, "projector": {"source": VISION}},
            cache={"mode": "PVC", "size": "2Gi"},
        )
    )
    finish(world)
    job = config(world.job("pull"))
    assert job.projector is not None
    assert job.projector.pin == PROJECTOR.pin
    world.finish_job("pull", HEADER)
    world.settle()
    world.run_pods(facts=HEADER)
    world.settle()
    world.edit(model={"source": MODEL, "projector": {"source": VISION}, "name": "other"})
    world.settle()
    assert "Job" not in world.kinds(), "both lie there already"


def test_a_model_on_a_claim_has_room_for_a_projector_from_elsewhere() -> None:
    """It is linked to where it lies; what is fetched beside it isn't."""
    limits = {}
    for name, projector in (("elsewhere", {"source": VISION}), ("own", {})):
        world = World(spec(model={"source": CLAIM, "projector": projector}))
        finish(world)
        volumes = {each["name"]: each for each in world.deployment["spec"]["template"]["spec"]["volumes"]}
        limits[name] = parse_quantity(volumes["models"]["emptyDir"]["sizeLimit"])
    assert limits["elsewhere"] - limits["own"] >= PROJECTOR.size_bytes
    assert limits["own"] < PROJECTOR.size_bytes


def test_a_class_that_has_no_room_for_it_is_passed_over() -> None:
    world = World(
        spec(model={"source": MODEL, "projector": {"source": VISION}}), nodes=(node(memory="512Mi"),)
    )
    finish(world)
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["reason"] == "DoesNotFit"
    assert "projector 346 MiB" in ready["message"]


def test_a_source_that_the_site_doesn_t_allow_is_refused_of_it_too() -> None:
    world = World(spec(model={"source": MODEL, "projector": {"source": VISION}}))
    fetch = world.settings.fetch.model_copy(update={"allowed_sources": ("hf://org/vl/",)})
    world.settings = world.settings.model_copy(update={"fetch": fetch})
    world.settle()
    ready = world.condition("Ready")
    assert ready is not None
    assert VISION in ready["message"]


def test_one_that_comes_or_goes_is_a_change_like_any_other() -> None:
    world = plain()
    world.run_pods(facts=HEADER)
    world.settle()
    world.edit(model={"source": MODEL, "projector": {}})
    world.settle()
    assert taken(world).projector is None, "not before it is known what it is"
    finish(world)
    assert taken(world).projector is not None
    world.edit(model={"source": MODEL})
    world.settle()
    assert taken(world).projector is None
