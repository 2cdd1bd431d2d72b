"""The inbox: receives events from Pulsar and applies the effect of each once."""
