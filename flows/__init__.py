"""The work around serving: Prefect flows at the top level, one package per noun below."""
