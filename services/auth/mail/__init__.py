"""Mail: what is written (`letters`), and how it leaves (`outbox`)."""
