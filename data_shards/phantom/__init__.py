"""Simulated cohorts: anatomy, scanner, tumour, written as BIDS."""
