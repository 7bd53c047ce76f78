"""The demonstration: a stack of its own, live traffic, and every promise of the server put to the test."""
