"""Translators of MIL operators, grouped by what they do; `flows.translation.operators.table` lists them."""
