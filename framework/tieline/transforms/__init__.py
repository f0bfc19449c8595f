"""Built-in transforms.

A transform subclasses ``tieline.api.Transform``, and an entry point in ``tieline.transforms`` names it.
"""
