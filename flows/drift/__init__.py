"""Whether what a model is asked has changed: windows of the inference log against a reference."""
