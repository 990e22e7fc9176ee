"""Streams that decisions are taken from; each is a torghut.ports.DecisionStream."""
