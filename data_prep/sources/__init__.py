"""Where texts come from: planned as parts, read as bounded streams, with errors that name file and line."""
