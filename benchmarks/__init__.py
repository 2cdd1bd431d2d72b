"""Figures that depend on time, as ratios within one run; `make bench`."""
