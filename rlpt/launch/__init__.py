"""Starting a run on many nodes: one LaunchSpec, written into the files that each kind of cluster wants."""
