"""What an SLMDeployment is made of: a builder a child; `objects` lists them. Pure."""
