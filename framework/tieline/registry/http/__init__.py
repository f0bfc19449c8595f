"""Confluent's HTTP interface of a schema registry."""
