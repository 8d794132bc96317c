"""Between columns and the space that networks see: discrete values, forms, rounding, constraints, ranges, margins."""
