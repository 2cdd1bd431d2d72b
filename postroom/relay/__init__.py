"""The relay: tails the outbox and publishes each event to Pulsar once, in commit order."""
