"""Sinks of the outbox: each a small class over the field's own client (torghut.ports.Publisher).

    log · notify (Postgres) · webhook · redis · nats · rabbitmq

A client that does not come with Torghut is imported when its sink is opened: `opening.py`.
"""
