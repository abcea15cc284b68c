"""Other people's files and commands, read for what an SLMDeployment says."""
