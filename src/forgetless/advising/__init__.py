"""Advice before any training: what a recipe risks, why, and the edit that mends it.

    files (files.py) -> dialects/ -> Recipe (recipe.py) --+
    data and tokenizer on this machine (evidence.py) -----+-> rules (rules.py) -> Advice (advice.py)
                                                                |-> edits in the file (edits.py)
    a few dozen real steps at three rates (pilot.py) -----------+

Nothing here needs torch but the pilot, and the tokenizer where there is one.
"""
