"""The low-shot protocol: training of heads, metrics, prediction, report."""
