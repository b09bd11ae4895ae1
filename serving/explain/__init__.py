"""Explains single predictions: what each raw input column contributed, for a model of any framework.

Contributions are Shapley values (Shapley 1953) of the game in which a column that plays has the value of the explained
row, and one that does not has that of a background row, averaged over the background rows of the bundle (interventional
Shapley values; Janzing et al., AISTATS 2020). They sum to the prediction less the mean prediction of the background.
Only predictions are asked for, so that every framework is explained alike.
"""

from serving.explain.explain import ROWS, Explanation, NoBackground, explain, reply
from serving.explain.sampling import TooSlow

__all__ = ["ROWS", "Explanation", "NoBackground", "TooSlow", "explain", "reply"]
