"""The administration endpoints under `/api/v2` and the edge rules every endpoint shares."""
