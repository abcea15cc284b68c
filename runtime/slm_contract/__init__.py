"""What operator and runtime must agree on, and nothing else.

The operator writes a :class:`~slm_contract.config.RuntimeConfig` into the pod template and reads
:class:`~slm_contract.report.FetchReport` and :class:`~slm_contract.report.RuntimeReport`; the runtime does
the reverse. Either side may be one version older than the other.
"""
