"""What a spec asks of a model's signature, against what its source has."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from slm_contract.config import SignaturePolicy, VerificationConfig
from slm_contract.report import ModelFacts
from slm_runtime.errors import InvalidModel, SignatureInvalid, SignatureMissing, SourceNotFound
from slm_runtime.models.folder import KeptSignature
from slm_runtime.models.signature import MAX_BYTES, Signed, verify_bundle
from slm_runtime.models.sources.artifact import Artifact
from slm_runtime.models.sources.remote import FoundSignature, RemoteModel
from slm_runtime.models.sources.site import Site


@dataclass(frozen=True)
class VerifiedSignature:
    """A signature by somebody trusted, and what it says."""

    signed: Signed
    kept: KeptSignature

    def check(self, digests: Sequence[str | None], *, early: bool = False) -> None:
        """Compare the model's files, in their order, with those that were signed.

        Parameters
        ----------
        early
            Whether a checksum that isn't known yet will do.

        Raises
        ------
        SignatureInvalid
        """
        if len(digests) != len(self.kept.names):
            raise SignatureInvalid(
                f"The model has {len(digests)} files, and its signature names {len(self.kept.names)} of them."
            )
        self.signed.check(list(zip(self.kept.names, digests, strict=True)), early=early)


class Verification:
    """Of one attempt: those who are trusted are read anew for each, since ConfigMaps and Secrets change."""

    def __init__(self, config: VerificationConfig, site: Site) -> None:
        """Raise ConfigError where those who are trusted can't be read."""
        # Half the time that a fetch takes to start, and only this needs it.
        from slm_runtime.models.signers import load_signers

        path = site.places.signers
        self._required = config.policy is SignaturePolicy.REQUIRE
        self._signers = load_signers(config.signers, path)
        self._trusted = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def find(self, remote: RemoteModel) -> FoundSignature | None:
        """Ask the source for the signature; None: there is none, and may be none.

        Raises
        ------
        SignatureMissing
        SignatureInvalid
            It is empty.
        """
        if remote.signature is None:
            self._check_optional(remote, "there is no signature beside it.")
            return None
        try:
            return remote.signature.find()
        except SourceNotFound as error:
            self._check_optional(remote, error.message)
            return None
        except InvalidModel as error:
            raise SignatureInvalid(error.message) from error

    def read(self, remote: RemoteModel, found: FoundSignature | None) -> VerifiedSignature | None:
        """Verify the signature that was found, and that it is of the model's files.

        Raises
        ------
        SignatureMissing
        SignatureInvalid
        """
        if found is None:
            return None
        try:
            bundle = _content(found.artifact)
        except SourceNotFound as error:
            self._check_optional(remote, error.message)
            return None
        signed = verify_bundle(bundle, self._signers)
        signature = VerifiedSignature(signed, KeptSignature(bundle=bundle.decode(), names=found.names))
        signature.check([each.sha256 for each in remote.files], early=True)
        return signature

    def state(self, found: FoundSignature | None) -> str:
        """What tells one signature from another, and those who are trusted: after a change it is tried again."""
        return f"{None if found is None else found.artifact.payload.version} {self._trusted}"

    def holds(self, kept: KeptSignature | None, facts: ModelFacts) -> bool:
        """Whether a model that is there is still signed by somebody trusted, by the signature that was kept."""
        if kept is None:
            return not self._required
        try:
            signed = verify_bundle(kept.bundle.encode(), self._signers)
            VerifiedSignature(signed, kept).check(digests_of(facts))
        except SignatureInvalid:
            return False
        return signed.by == facts.signed_by

    def _check_optional(self, remote: RemoteModel, why: str) -> None:
        if self._required:
            raise SignatureMissing(f"{remote.files[0].artifact.payload.where} isn't signed: {why}")


def digests_of(facts: ModelFacts) -> list[str | None]:
    """Checksum of each file as the source has it, in the model's order: what is derived of them nobody has signed."""
    return [each.sha256 for each in facts.source_files] or [facts.source_sha256]


def _content(artifact: Artifact) -> bytes:
    content = bytearray()
    with artifact.head() as (chunks, _):
        for chunk in chunks:
            content += chunk
            if len(content) > MAX_BYTES:
                raise SignatureInvalid(
                    f"{artifact.payload.where} is no signature: it has more than {MAX_BYTES:,} bytes."
                )
    return bytes(content)
