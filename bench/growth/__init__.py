"""How cost grows: with keys, users and callers at once, usage rows, room URL length, batch size, replicas.

`make bench ONLY=growth`: alone, for it writes ten million rows twice. Each scenario gives curves; a curve's
exponent is the slope of its line between its smallest and its largest size, both axes by logarithms:
1 is linear, 0 flat.
"""
