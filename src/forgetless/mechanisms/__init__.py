"""What several methods share: estimates of what matters, penalties in closed form, data to keep."""
