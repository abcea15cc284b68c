"""`slm-runtime inspect`: what a model's header says, without transferring the model."""

import time
from pathlib import Path

from slm_contract import kv
from slm_contract.config import KVCacheType, ModelConfig, VerificationConfig
from slm_contract.places import ExitCode
from slm_contract.report import FetchReport, ModelFacts
from slm_runtime.errors import RuntimeFailure, SourceNotFound
from slm_runtime.fetching.derive import plan
from slm_runtime.fetching.headers import remote_facts
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.verification import Verification
from slm_runtime.models.folder import storage_errors
from slm_runtime.models.sources.artifact import FileBlob, PlainFile
from slm_runtime.models.sources.asked import LATEST, Asked
from slm_runtime.models.sources.folders import EXPORTED, choose_model, is_graph
from slm_runtime.models.sources.remote import RemoteFile, RemoteModel
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.shards import Listed
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from slm_runtime.termination import bounded_json, leave


def inspect_command(model: ModelConfig, site: Site, patience: Patience | None = None) -> int:
    """Inspect the model of a pod's configuration: one line of JSON for the operator, and the exit code."""
    started = time.monotonic()
    facts = failure = None
    code = ExitCode.OK
    try:
        facts = inspect(model.source, site, patience, model.verification, Asked.by(model))
    except RuntimeFailure as error:
        failure = error.to_failure()
        code = ExitCode.FETCH_PERMANENT if error.permanent else ExitCode.FETCH_TRANSIENT
    seconds = round(time.monotonic() - started, 3)
    report = FetchReport(command="inspect", model=facts, failure=failure, seconds=seconds)
    leave(report, site.places.termination_message)
    print(bounded_json(report).decode())
    return code


def inspect(
    source: str,
    site: Site,
    patience: Patience | None = None,
    verification: VerificationConfig | None = None,
    asked: Asked = LATEST,
) -> ModelFacts:
    """Read the header of a model: a URI, or a local file.

    Parameters
    ----------
    verification
        What is asked of its signature: that it is there and by whom is known here, what it is of only when all is fetched.
    asked
        In which number format: where it has to be derived the answer is what that will be.

    Raises
    ------
    RuntimeFailure
    """
    if "://" not in source:
        return inspect_file(Path(source))
    patience = patience or Patience()
    while True:
        try:
            with storage_errors(site.places.model_dir), open_model(source, site, asked) as remote:
                if verification is not None:
                    trusted = Verification(verification, site)
                    trusted.read(remote, trusted.find(remote))
                identities = site.places.identities
                facts = plan(remote, identities, asked)
                return facts.model_copy(update={"pin": remote.pin})
        except RuntimeFailure as failure:
            patience.wait(failure, 0)


def inspect_file(path: Path, asked: Asked = LATEST) -> ModelFacts:
    """Read the header of a local file or folder.

    Raises
    ------
    RuntimeFailure
    """
    with storage_errors(path):
        return remote_facts(local_model(path, asked), Places.from_environment().identities)


def local_model(path: Path, asked: Asked = LATEST) -> RemoteModel:
    """A file, or the one model that a folder has, where it lies.

    Raises
    ------
    RuntimeFailure
    """
    if path.is_file() and not is_graph(path.name):
        return RemoteModel((RemoteFile(path.name, PlainFile(path.name, FileBlob(path))),))
    root = path if path.is_dir() else path.parents[1] if path.parent.name == EXPORTED else path.parent
    if not path.exists():
        raise SourceNotFound(f"There is no file {path}.", "Name a GGUF file, a folder of ONNX, or a URI.")
    found = (each for each in root.rglob("*") if each.is_file())
    listed = [Listed(each.relative_to(root).as_posix(), each.stat().st_size) for each in found]
    chosen = choose_model(
        listed, None if path is root else path.relative_to(root).as_posix(), str(root), asked
    )
    return RemoteModel(
        tuple(
            RemoteFile(chosen.name(each), PlainFile(each.rpartition("/")[2], FileBlob(root / each)))
            for each in chosen.paths
        )
    )


def table(facts: ModelFacts) -> str:
    """The facts as people read them."""
    if facts.adapter:
        return (
            f"a LoRA adapter of a {facts.architecture} model: {facts.file_name} ({facts.size_bytes:,} bytes)"
        )
    if facts.projector:
        return (
            f"a projector of pictures ({facts.projector.kind}) for a model with embeddings of "
            f"{facts.projector.output_length or 'a length that it does not tell'}: {facts.file_name} "
            f"({facts.size_bytes:,} bytes)"
        )
    kv_heads = sorted(set(facts.kv_heads))
    rows = {
        "file": f"{facts.file_name} ({facts.size_bytes:,} bytes)",
        "name": facts.name or "-",
        "architecture": facts.architecture + (", an encoder" if facts.encoder else ""),
        "parameters": f"{facts.parameter_count:,}" if facts.parameter_count else "-",
        "quantization": facts.quantization or "-",
        "weights": f"{facts.weights_bytes / (1 << 20):,.1f} MiB",
        "context": f"{facts.context_length:,} tokens",
        "blocks": str(facts.block_count),
        "embedding": str(facts.embedding_length),
        "heads": f"{facts.head_count}, key/value {' or '.join(map(str, kv_heads))}",
        "head size": f"key {facts.key_length}, value {facts.value_length}",
        "KV cache": f"{_kv_bytes(facts) / 1024:,.1f} KiB a token ({facts.kv_type or KVCacheType.F16.value})"
        if _kv_bytes(facts)
        else "-",
        "state": f"{facts.recurrent_elements / (1 << 18):,.1f} MiB a sequence"
        if facts.recurrent_elements
        else "-",
        "experts": f"{facts.expert_used_count} of {facts.expert_count}" if facts.expert_count else "-",
        "vocabulary": f"{facts.vocab_size:,} tokens",
        "sliding window": f"{facts.sliding_window:,} tokens" if facts.sliding_window else "-",
        "chat template": "yes" if facts.has_chat_template else "no",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _kv_bytes(facts: ModelFacts) -> int:
    return int(kv.element_bytes(facts, KVCacheType.F16) * (facts.kv_elements or 0))
