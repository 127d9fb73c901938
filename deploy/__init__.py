"""How the product is put together to run: one table of services and settings, and what is made of it."""
