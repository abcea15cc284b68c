"""The operator: SLMDeployments in, Deployments of the runtime out."""
