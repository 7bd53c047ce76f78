"""Messages generated from the .proto files beside them; see the head of inference.proto."""
