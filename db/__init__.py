"""The schema: dbmate migrations, their tests, and where those get the older servers from."""
