"""`spec.model.verification`: whose signature a model needs."""

from pydantic import ConfigDict

from slm_contract.config import SignaturePolicy, SignerKind, VerificationConfig
from slm_operator.crd.base import ApiModel, EntryReference, rule, rules


class Signers(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.configMapRef) != has(self.secretRef)",
                "write either configMapRef or secretRef, with name and key",
            )
        )
    )

    config_map_ref: EntryReference | None = None
    """ConfigMap that holds it."""
    secret_ref: EntryReference | None = None
    """Secret that holds it."""


class Verification(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.publicKey) != has(self.certificate)",
                "write either publicKey or certificate: whose signature is trusted",
            )
        )
    )

    policy: SignaturePolicy = SignaturePolicy.REQUIRE
    """`Require`: what nobody trusted has signed is never served. `IfPresent`: a model without a signature is served too, one
    with a wrong signature never."""
    public_key: Signers | None = None
    """Public keys, one or more, each of which may sign: ECDSA on P-256, P-384 or P-521."""
    certificate: Signers | None = None
    """Certificates of those who may sign, or of authorities whose certificates for signing are trusted."""

    @property
    def config(self) -> VerificationConfig:
        """What a fetch is told."""
        kind = SignerKind.CERTIFICATE if self.public_key is None else SignerKind.PUBLIC_KEY
        return VerificationConfig(policy=self.policy, signers=kind)

    @property
    def in_config_map(self) -> bool:
        return self._trusted.config_map_ref is not None

    @property
    def signers(self) -> EntryReference:
        """The entry that holds those who are trusted; the API server sees to it that there is one."""
        reference = self._trusted.config_map_ref or self._trusted.secret_ref
        return reference or EntryReference(name="-", key="-")

    @property
    def _trusted(self) -> Signers:
        return self.public_key or self.certificate or Signers()
