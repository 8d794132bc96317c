"""How far generated rows are from real ones: distances, figures, pictures and the report."""
