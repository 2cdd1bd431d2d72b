"""Each a module, as Django looks for them."""

__all__: list[str] = []
