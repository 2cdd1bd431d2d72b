"""Parking: events that were given up, on their way to the dead letters and back."""
