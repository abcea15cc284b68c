"""The engine process and the border to it.

`messages` says what crosses the border, `client` is what the API process sees of it, `supervisor` starts and
restarts the process, `process` is its main; `protocol` is what an engine driven step by step implements, and
each such engine is a package of its own that nothing but the engine process imports.
"""
