"""Answers become pictures: plotly figures for numbers, PIL pictures for pixels, one sprite for a grid."""
