"""What several methods share: adapters, kept data, batches, penalties."""
