"""Receiving: from the topics of a subscription to its dispatcher."""
