"""Why a model can't be loaded."""

from slm_runtime.engine.loading import LoadFailed, LoadFailureReason


class LoadError(Exception):
    """The model can't be served; `failure` says why."""

    def __init__(self, reason: LoadFailureReason, message: str) -> None:
        super().__init__(message)
        self.failure = LoadFailed(reason=reason, message=message)
