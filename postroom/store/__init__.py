"""What MongoDB keeps for postroom: each stored form has one module that knows its fields."""
