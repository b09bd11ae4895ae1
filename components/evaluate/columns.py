"""The columns that the evaluation adds to the test rows, for staging and rollout to read."""

PREDICTION = "__prediction__"
"""The challenger's probabilities in class order, or its value, as a list."""

CHAMPION = "__champion__"
"""The champion's, on the same row; absent without one that could be scored."""
