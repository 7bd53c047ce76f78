"""The shared floor: names, values and pure rules. Standard library and numpy only; no I/O."""
