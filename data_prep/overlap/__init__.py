"""Documents that repeat earlier ones, and documents that hold what evaluations ask."""
