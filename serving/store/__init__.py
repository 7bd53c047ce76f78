"""Shared persistence: the state store, the local durable files and the MLflow registry client."""
