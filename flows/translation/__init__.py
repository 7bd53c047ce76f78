"""Core ML models as ONNX graphs, so that a server without Apple's runtime can answer for them."""
