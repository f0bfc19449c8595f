"""Fetches from the platform's historian what the bus source missed.

``reception`` knows what was received and finds gaps (pure), ``received_file`` keeps that over restarts,
``history`` checks a historian's answers and rebuilds messages (pure), ``historian`` calls it, ``filler`` is
the thread that fills gaps, ``backfill`` is what the source sees. docs/decisions/back-fill.md says why.
"""
