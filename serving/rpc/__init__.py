"""The Open Inference Protocol v2 over gRPC; the only place that knows gRPC. Imported when it starts."""
