"""How Pulsar is reached: encrypted or not, as whom, and why it refuses. Knows no room above it."""
