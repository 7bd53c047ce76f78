"""Ordered migrations of the state store; `serving.store.database.upgrade` runs them."""
