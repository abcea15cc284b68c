"""The SLMDeployment: its models are the source of truth; schema, CRD and reference page are generated from them."""
