"""Sending: from batches of rows to the topics, each row once and in order."""
