"""The kinds of second factors, recovery codes, and the count of wrong answers; `service.mfa` uses them."""
