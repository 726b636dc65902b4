"""The paper's table: its recipe, its stages, what they cost, their results."""
