"""Thousands of cancels while everything is killed: what was lost, and how soon the rest went on."""
