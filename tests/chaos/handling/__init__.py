"""The handlers of the consumer chaos, in modules as an application has them."""
