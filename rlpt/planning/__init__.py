"""What a recipe amounts to on a cluster, before any of it is there: memory, work, communication, time, layouts."""
