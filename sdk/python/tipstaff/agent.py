"""What the agent offers. Where there is no agent, each use of it says so."""


class _Nowhere:
    def __getattr__(self, name):
        raise RuntimeError(
            f"{name}: there is no agent here; call this in `configure` or later, not at the module's top level"
        )


try:
    from wit_world.imports import alerts, log, metrics, state
except ImportError:
    alerts = log = metrics = state = _Nowhere()
