"""What the documentation site shows beyond the pages in ``docs``: references made from the code, and sources.

``settings`` and ``program`` need tieline alone, ``repository`` nothing; ``hooks`` is what MkDocs calls.
"""
