"""What several methods share, so that methods need not know one another."""
