"""Alerts at 80 and 100 % of a day's quota: raised when usage is committed, delivered by mail and webhook.

Each is made once, by the table's own constraint; each way is tried until it is taken or given up, by
whichever replica gets to it. A delivery whose receipt was lost is repeated, with the same id.
"""
