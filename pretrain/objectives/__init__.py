"""One module a pretraining objective."""
