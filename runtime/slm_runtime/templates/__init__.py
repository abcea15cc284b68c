"""Chat templates: the model's own Jinja, run where it can do no harm.

A template comes inside the model file, so it is as trusted as whoever made that file. Jinja's sandbox
keeps it from Python's internals, but not from looping for ever or doubling a string fifty times. Hence a
process of its own (:mod:`~slm_runtime.templates.worker`) with a bound on memory, which
:mod:`~slm_runtime.templates.renderer` kills when a rendering takes too long.
"""
