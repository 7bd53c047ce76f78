"""Notices on their way to people: which go where, how a channel says them, and what came of it."""
