"""Repair: points between a base and a tuned model, and the search for the one that keeps a budget."""
