"""Several workers as one server: the parent that keeps them, and what they tell one another."""
