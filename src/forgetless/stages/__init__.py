"""The stages of a run, one after another on disk; `pipeline` puts them in order."""
