"""Studies of fine-tuned runs: how figures change with what a run is given, as tables and plots."""
