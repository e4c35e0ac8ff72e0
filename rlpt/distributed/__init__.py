"""Where it runs: the device door, the mesh of parallel axes, collectives."""
