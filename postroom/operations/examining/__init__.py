"""Examining: one module for each thing that the doctor looks at."""
