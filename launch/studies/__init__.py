"""Studies of training: many runs of the framework's own commands, compared case by case."""
