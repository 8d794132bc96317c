"""From columns to coordinates: discrete values, forms, rounding, constraints, ranges, margins."""
