"""This file makes the tests a package, which precedes a `tests` that other libraries install."""
