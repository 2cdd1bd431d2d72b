"""Saving: how far a relay is, kept in MongoDB, and what that allows to be pruned."""
