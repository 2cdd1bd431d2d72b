"""What the aid-kit's relay and consumer workers do: which topics, which handlers."""
