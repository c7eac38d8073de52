"""The six patterns that everybody begins with, each a script for every role in it.

A script is run as its own process with its role and texts as arguments. It prints `ready` when
messages can be sent to it, then a line for whatever it gets, and ends when its input does.
"""
