"""Health that needs more than one process's own view: what a served model still gets right."""
