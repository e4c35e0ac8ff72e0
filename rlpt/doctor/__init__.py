"""What of a host and its ranks would keep a recipe from training, found before it starts: checks with remedies."""
