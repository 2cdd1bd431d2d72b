"""The embedded services of development and tests: MongoDB, a Pulsar broker and Valkey."""
