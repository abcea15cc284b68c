"""A model in a smaller number format than its source has it in: foreseen by the headers, made when its files are there."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from slm_contract.config import Quantization
from slm_contract.report import ModelFacts
from slm_contract.source import ModelFile
from slm_runtime.errors import QuantizationFailed, UnsupportedFormat
from slm_runtime.fetching.headers import remote_facts
from slm_runtime.fetching.progress import Progress
from slm_runtime.fetching.quantize import Quantizer
from slm_runtime.models.facts import model_facts
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.quantization import REQUANTIZED, derived_name, origin_of, predicted, to_derive
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.remote import RemoteModel


def plan(
    remote: RemoteModel, identities: Path, asked: Asked, quantizer: Quantizer | None = None
) -> ModelFacts:
    """What the model will be, before anything but its headers is transferred; its origin is None where nothing is derived.

    The quantizer itself is asked: formats are mixed, by rules that follow the architecture.

    Raises
    ------
    UnsupportedQuantization
    RuntimeFailure
    """
    if not asked.formats:
        return remote_facts(remote, identities)
    with TemporaryDirectory(prefix="headers-") as scratch:
        source = remote_facts(remote, identities, Path(scratch))
        if source.kind != "model":
            return source
        if source.format != "GGUF" and asked.strict:
            raise UnsupportedFormat(
                f"The source is a folder of {source.format}, which is served in the number formats that its graph has"
                f" ({source.quantization}): {asked.formats[0].value} is llama.cpp's.",
                "Leave spec.model.quantization out, or name the source of a GGUF file.",
            )
        offered = remote.offered or ((source.quantization,) if source.quantization else ())
        source = source.model_copy(update={"offered": offered})
        wanted = None if source.format != "GGUF" else to_derive(source, asked.formats, strict=asked.strict)
        if wanted is None:
            return source
        weights = (quantizer or Quantizer()).weigh(Path(scratch) / source.file_name, wanted)
    return predicted(source, wanted, weights)


def derive(
    folder: ModelFolder, source: ModelFacts, wanted: Quantization, progress: Progress, quantizer: Quantizer
) -> ModelFacts:
    """Make the derived file of verified ones, give it its name, and say what it is.

    Raises
    ------
    RuntimeFailure
        Nothing is left of it.
    """
    try:
        quantizer.quantize(
            folder.path / source.file_name,
            folder.derived,
            wanted,
            requantize=source.quantization == REQUANTIZED,
            grown=progress.add,
        )
        progress.enter("Verifying")
        return _settled(folder, source, wanted)
    except BaseException:
        folder.derived.unlink(missing_ok=True)
        raise


def _settled(folder: ModelFolder, source: ModelFacts, wanted: Quantization) -> ModelFacts:
    name, made = derived_name(source.file_name, wanted), folder.derived
    size = made.stat().st_size
    facts = model_facts([(name, size, folder.chunks(made.name))])
    if (facts.quantization, facts.parameter_count) != (wanted.value, source.parameter_count):
        raise QuantizationFailed(
            f"llama.cpp made {facts.quantization} of {facts.parameter_count:,} parameters, where {wanted.value} of"
            f" {source.parameter_count:,} were to be."
        )
    with made.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    folder.settle(name, made, None, sha256)
    return facts.model_copy(
        update={
            "sha256": sha256,
            "files": (ModelFile(path=name, size_bytes=size, sha256=sha256),),
            "pin": source.pin,
            "origin": origin_of(source),
        }
    )
