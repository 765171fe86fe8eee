"""Alerts: what a human should hear of."""

from . import agent

_SEVERITIES = {"info": 0, "warning": 1, "critical": 2}


def alert(severity, message, **labels):
    """Raises an alert; `severity` is "info" (worth knowing), "warning" (someone should look) or
    "critical" (someone should look now). Labels tell alerts with the same message apart."""
    if severity not in _SEVERITIES:
        raise ValueError(f"severity {severity!r}: expected one of {', '.join(_SEVERITIES)}")
    agent.alerts.raise_(
        _SEVERITIES[severity], message, [(name, str(value)) for name, value in labels.items()]
    )
