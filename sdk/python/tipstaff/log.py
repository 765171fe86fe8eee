"""Lines for the agent's log. What is printed goes there as well: standard output as information,
standard error as warnings."""

from . import agent


def error(text):
    """Something is wrong."""
    agent.log.line(0, text)


def warning(text):
    """Something may be wrong."""
    agent.log.line(1, text)


def info(text):
    """Something that an operator may want to know."""
    agent.log.line(2, text)


def debug(text):
    """Something that helps to find a fault in the policy."""
    agent.log.line(3, text)
