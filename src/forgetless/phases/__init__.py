"""Many phases: the stages of a run, once for each phase of a config, on the model that the phase before left.

plan.py     a job for each phase, checked before anything is loaded
carry.py    what a phase starts from, and what is kept of it
run.py      the sequence itself, and what it comes to
"""
