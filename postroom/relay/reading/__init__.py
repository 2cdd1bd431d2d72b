"""Reading: from the collection and its change stream to batches of rows."""
