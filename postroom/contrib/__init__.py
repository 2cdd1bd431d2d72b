"""At home elsewhere: what web frameworks need of postroom, each in a module of its own.

None is imported by anything else here, and each needs its framework alone.
"""

__all__: list[str] = []
