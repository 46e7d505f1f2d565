"""litrev: the small library behind 18 notebooks on diffusion models.

Each module is imported by name (`from litrev import data, plots`), so that `import litrev` itself costs nothing.
"""
