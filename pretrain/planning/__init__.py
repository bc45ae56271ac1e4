"""What is said before a run: plan, cost, checks of machines and data."""
