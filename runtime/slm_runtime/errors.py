"""Everything that can go wrong in the runtime and that somebody can do something about.

::

    RuntimeFailure                 reason, message, remedy, permanent, exit code
    ├── ConfigError                SLM_CONFIG or a setting can't be used
    ├── SourceError
    │   ├── SourceInvalid          the URI, or what the server answers, makes no sense
    │   ├── SourceUnauthorized     401, 403
    │   ├── SourceNotFound         404, 410, no such package, no such file in it
    │   ├── SourceUntrusted        its certificate isn't trusted, or it isn't encrypted
    │   ├── SourceUnreachable      no connection, cut off, busy: trying again helps
    │   ├── SourceDrifted          other bytes than those that were pinned
    │   └── SourceChanged          another file than the one that was begun: starting again helps
    ├── ChecksumMismatch           the bytes aren't the ones asked for
    ├── SignatureMissing           nobody has signed it, and that is asked for
    ├── SignatureInvalid           it isn't what somebody trusted has signed
    ├── DecryptionFailed           it is encrypted for somebody else, or damaged
    ├── StorageError
    │   ├── OutOfSpace             the volume is full
    │   └── StorageUnusable        the volume can't be written or read
    ├── ModelError
    │   ├── InvalidModel           it is no whole model file
    │   ├── UnsupportedFormat      a model file that this runtime doesn't read
    │   ├── UnsupportedArchitecture
    │   ├── UnsupportedQuantization  the source hasn't the model in a format that the wanted one is derived from
    │   ├── QuantizationFailed     the native library failed at deriving it
    │   │   └── QuantizerKilled    its process was killed: trying again may help
    │   └── ModelMissing           nothing was fetched
    ├── OutOfMemory                it doesn't fit
    ├── DeviceUnavailable          the container lacks a device that the spec names
    ├── PortInUse                  somebody else listens there
    ├── EngineFailed               the native library failed, again and again
    ├── KeysMissing                no API key, and keys are asked for
    └── AccelerationDegraded       it runs on something else than what was asked for

A class knows its reason in the contract, whether trying again without a change can help, and the exit code of
a process that ends with it; who raises it says what is wrong, where, and what to do.
"""

from typing import ClassVar

from slm_contract.places import ExitCode
from slm_contract.report import Failure, FailureReason


class RuntimeFailure(Exception):
    """Raise a subclass. `message`: what is wrong and where; `remedy`: what to do. One sentence each."""

    reason: ClassVar[FailureReason]
    permanent: ClassVar[bool] = True
    exit_code: ClassVar[ExitCode] = ExitCode.ENGINE_FAILED
    default_remedy: ClassVar[str]

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.default_remedy

    def to_failure(self) -> Failure:
        """What the operator and people get to read of it."""
        return Failure(reason=self.reason, message=self.message, remedy=self.remedy, permanent=self.permanent)


class ConfigError(RuntimeFailure):
    reason = FailureReason.CONFIG_INVALID
    exit_code = ExitCode.CONFIG_INVALID
    default_remedy = "Correct the configuration of the runtime."


class SourceError(RuntimeFailure):
    exit_code = ExitCode.FETCH_PERMANENT


class SourceInvalid(SourceError):
    reason = FailureReason.SOURCE_INVALID
    default_remedy = "Correct spec.model.source."


class SourceUnauthorized(SourceError):
    reason = FailureReason.SOURCE_UNAUTHORIZED
    default_remedy = (
        "Name a Secret with `token`, or `username` and `password`, in spec.model.credentials.secretRef,"
        " or let the one that is there read this file."
    )


class SourceNotFound(SourceError):
    reason = FailureReason.SOURCE_NOT_FOUND
    default_remedy = "Correct spec.model.source, or publish the file there."


class SourceUntrusted(SourceError):
    reason = FailureReason.SOURCE_UNTRUSTED
    default_remedy = (
        "Put the CA that signed it into spec.model.caBundle, or into the operator's configuration."
    )


class SourceUnreachable(SourceError):
    reason = FailureReason.SOURCE_UNREACHABLE
    permanent = False
    exit_code = ExitCode.FETCH_TRANSIENT
    default_remedy = (
        "Look at the server, the network policy and the proxy settings; it is tried again by itself."
    )

    def __init__(self, message: str, remedy: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message, remedy)
        self.retry_after = retry_after
        """Seconds that the server asked for."""


class SourceDrifted(SourceError):
    reason = FailureReason.SOURCE_DRIFTED
    default_remedy = (
        "Publish what was there before, or take what is there now: change spec.model.source, or write"
        " spec.model.refreshPolicy: OnChange."
    )


class SourceChanged(SourceError):
    reason = FailureReason.SOURCE_UNREACHABLE
    permanent = False
    exit_code = ExitCode.FETCH_TRANSIENT
    default_remedy = "It is fetched anew by itself; publish under a new name instead of replacing a file."


class ChecksumMismatch(RuntimeFailure):
    reason = FailureReason.CHECKSUM_MISMATCH
    exit_code = ExitCode.FETCH_PERMANENT
    default_remedy = "Correct spec.model.sha256, or publish the file again; nothing was kept."


class SignatureMissing(RuntimeFailure):
    reason = FailureReason.SIGNATURE_MISSING
    exit_code = ExitCode.FETCH_PERMANENT
    default_remedy = "Publish the model's signature beside it; nothing was kept of what isn't signed."


class SignatureInvalid(RuntimeFailure):
    reason = FailureReason.SIGNATURE_INVALID
    exit_code = ExitCode.FETCH_PERMANENT
    default_remedy = (
        "Have the model signed by somebody whom spec.model.verification trusts, and publish the signature beside it;"
        " nothing was kept."
    )


class DecryptionFailed(RuntimeFailure):
    reason = FailureReason.DECRYPTION_FAILED
    exit_code = ExitCode.FETCH_PERMANENT
    default_remedy = (
        "Encrypt the model for the recipient of the identity in spec.model.decryption, or name the identity that it is"
        " encrypted for."
    )


class StorageError(RuntimeFailure):
    permanent = False
    exit_code = ExitCode.FETCH_TRANSIENT


class OutOfSpace(StorageError):
    reason = FailureReason.OUT_OF_SPACE
    default_remedy = "Enlarge spec.cache.size, free space on the volume, or choose a smaller quantization."


class StorageUnusable(StorageError):
    reason = FailureReason.STORAGE_UNUSABLE
    default_remedy = (
        "Let the pod's user and group write to the model volume (fsGroup), or use another volume."
    )


class ModelError(RuntimeFailure):
    exit_code = ExitCode.MODEL_INVALID


class InvalidModel(ModelError):
    reason = FailureReason.INVALID_MODEL
    default_remedy = "Name a whole GGUF file in spec.model.source; nothing was kept of this one."


class UnsupportedFormat(ModelError):
    reason = FailureReason.UNSUPPORTED_FORMAT
    default_remedy = "Convert the model to a single GGUF file of version 2 or 3."


class UnsupportedArchitecture(ModelError):
    reason = FailureReason.UNSUPPORTED_ARCHITECTURE
    default_remedy = "Choose a model of an architecture that the engine knows, or a newer runtime image."


class UnsupportedQuantization(ModelError):
    reason = FailureReason.UNSUPPORTED_QUANTIZATION
    default_remedy = (
        "Name a source that has the model in F32, F16, BF16 or Q8_0, or leave out spec.model.quantization."
    )


class QuantizationFailed(ModelError):
    reason = FailureReason.QUANTIZATION_FAILED
    default_remedy = (
        "Name a source that has the model in the format that is wanted, or leave out spec.model.quantization;"
        " the log of the container has the native library's last words."
    )


class QuantizerKilled(QuantizationFailed):
    permanent = False
    default_remedy = (
        "It is tried again by itself; where that doesn't help, name a source that has the model in the format that is"
        " wanted."
    )


class ModelMissing(ModelError):
    reason = FailureReason.MODEL_MISSING
    default_remedy = "Run `slm-runtime fetch` with the same configuration and the same volume first."


class OutOfMemory(RuntimeFailure):
    permanent = False
    reason = FailureReason.OUT_OF_MEMORY
    exit_code = ExitCode.OUT_OF_MEMORY
    default_remedy = "Raise spec.resources, or lower spec.runtime.contextLength or spec.runtime.parallel."


class DeviceUnavailable(RuntimeFailure):
    reason = FailureReason.DEVICE_UNAVAILABLE
    exit_code = ExitCode.ENGINE_FAILED
    default_remedy = (
        "Correct spec.runtime.devices, or leave it out: all devices that the container has are taken."
    )


class PortInUse(RuntimeFailure):
    reason = FailureReason.PORT_IN_USE
    permanent = False
    exit_code = ExitCode.PORT_IN_USE
    default_remedy = "End the process that listens there, or choose another port."


class EngineFailed(RuntimeFailure):
    reason = FailureReason.ENGINE_FAILED
    permanent = False
    exit_code = ExitCode.ENGINE_FAILED
    default_remedy = "Look at the pod's log for the native library's last words."


def of_engine(reason: str, message: str) -> RuntimeFailure:
    """What the engine failed with, by the reason that it gave."""
    known = {
        each.reason: each for each in (UnsupportedArchitecture, OutOfMemory, DeviceUnavailable, EngineFailed)
    }
    if reason == InvalidModel.reason:
        return InvalidModel(
            message, "Publish the file anew under another name; the one on the volume is of no use."
        )
    return known[FailureReason(reason)](message)


class KeysMissing(RuntimeFailure):
    reason = FailureReason.KEYS_MISSING
    permanent = False
    exit_code = ExitCode.CONFIG_INVALID
    default_remedy = "Put an API key into the Secret, or write spec.auth.mode: None."


class AccelerationDegraded(RuntimeFailure):
    reason = FailureReason.ACCELERATION_DEGRADED
    exit_code = ExitCode.ENGINE_FAILED
    default_remedy = (
        "Look at the node's drivers and device plug-in, or accept it with spec.hardware.onDegraded: Report."
    )
