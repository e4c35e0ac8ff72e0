"""Reports: what a run's folder shows, drawn from its files alone."""
