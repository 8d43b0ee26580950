"""How to act: policies that learn from preference labels, and the commands that train, judge and show them."""
