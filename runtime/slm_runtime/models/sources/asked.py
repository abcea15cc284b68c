"""What a source is asked for, beside its address."""

from dataclasses import dataclass, replace
from typing import Self

from slm_contract.config import ModelConfig, ModelFormat, Part, Quantization


@dataclass(frozen=True)
class Asked:
    revision: str | None = None
    """The state that was pinned, as `RemoteModel.revision` named it; None: the one that the address names now."""
    variant: str | None = None
    """What was chosen of that state before, as `RemoteModel.variant` named it."""
    formats: tuple[Quantization, ...] = ()
    """The first that the source has, or of whose larger ones it has one, is chosen; none: there must be one model alone."""
    strict: bool = False
    """Whether nothing else will do."""
    part: Part | None = None
    """What of the source is wanted; None: the model."""
    format: ModelFormat = ModelFormat.AUTO
    """Where the source has the model in several."""

    @classmethod
    def by(cls, model: ModelConfig) -> Self:
        """What a model is to be now, whatever was pinned."""
        if model.quantization is not None:
            return cls(formats=(model.quantization,), strict=True, format=model.format)
        return cls(formats=model.auto or (), part=model.part, format=model.format)

    @classmethod
    def as_pinned(cls, model: ModelConfig) -> Self:
        pin, now = model.pin, cls.by(model)
        return now if pin is None else replace(now, revision=pin.revision, variant=pin.path)


LATEST = Asked()
