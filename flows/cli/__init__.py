"""The `signalbox` console script, the supervisor behind `up`, and the demonstration."""
