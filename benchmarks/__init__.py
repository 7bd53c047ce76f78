"""Measures what the README promises, side by side with others on one machine: `make bench`."""
