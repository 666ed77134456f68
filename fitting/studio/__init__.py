"""The studio: heads, voices and cameras made by rule, and recordings of them in which every answer is known."""
