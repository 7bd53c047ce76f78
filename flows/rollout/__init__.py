"""Moving a version to production: the steps of a promotion, their evidence and their outcome."""
