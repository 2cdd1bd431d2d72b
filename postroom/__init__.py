"""postroom: a transactional outbox and inbox for MongoDB and Apache Pulsar, on Celery."""
